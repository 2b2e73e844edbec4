package kube

import (
	"context"
	"errors"
	"fmt"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/version"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"
)

// Kubelet is what the kubelet is told by flags; everything else stands in its
// configuration file.
type Kubelet struct {
	// ConfigFile holds a KubeletConfiguration, kubelet.config.k8s.io/v1beta1.
	ConfigFile string
	// Kubeconfig is the node's identity at the host API.
	Kubeconfig string
	// NodeName and NodeIP are what the node is registered under.
	NodeName, NodeIP string
	// RootDir holds the kubelet's state; pods' volumes are mounted below it.
	RootDir string
	// Labels are set on the node when it registers.
	Labels map[string]string
	// ImportedID returns the ID of the image that was imported under a name that a pod
	// has given, and "" when none was.
	ImportedID func(ctx context.Context, name string) (string, error)
}

// Version returns the version of the linked Kubernetes, "v1.37.1".
func Version() string { return version.Get().GitVersion }

// RunKubelet runs the kubelet until ctx ends. It returns an error when it could
// not start or ended by itself, and nil after ctx; containers go on either way.
func RunKubelet(ctx context.Context, k Kubelet) error {
	server, err := k.server(ctx)
	if err != nil {
		return err
	}
	deps, err := kubeletapp.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("prepare the kubelet: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var unready error
	k.wrapRuntime(deps, func(err error) { unready = err; stop() })
	err = kubeletapp.Run(ctx, server, deps, utilfeature.DefaultFeatureGate)
	if err := errors.Join(err, unready); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return fmt.Errorf("the kubelet ended by itself")
	}
	return nil
}

// server returns the kubelet's options, checked.
func (k Kubelet) server(ctx context.Context) (*options.KubeletServer, error) {
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, k.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read the kubelet's configuration: %w", err)
	}
	config, err := loader.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the kubelet's configuration: %w", err)
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(config.FeatureGates); err != nil {
		return nil, fmt.Errorf("set the kubelet's feature gates: %w", err)
	}
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("kubelet configuration %s: %w", k.ConfigFile, err)
	}
	flags := options.NewKubeletFlags()
	flags.KubeConfig = k.Kubeconfig
	flags.HostnameOverride = k.NodeName
	flags.NodeIP = k.NodeIP
	flags.RootDirectory = k.RootDir
	flags.CertDirectory = k.RootDir + "/pki"
	flags.NodeLabels = k.Labels
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return nil, fmt.Errorf("kubelet flags: %w", err)
	}
	return &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}, nil
}
