package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/host-agent/internal/kube"
	"sublet.dev/host-agent/node"
)

// nodeResync is how often the Node object is looked at again, so that a failed
// step is repeated.
const nodeResync = 15 * time.Second

// watchNode keeps the Node object's labels true and, once the object has a pod
// range, opens the pod network and runs kube-proxy. It returns nil when ctx ends.
func (a *agent) watchNode(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the node's kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of the host API: %w", err)
	}
	only := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, a.NodeName).String()
	})
	factory := informers.NewSharedInformerFactoryWithOptions(client, nodeResync, only)
	informer := factory.Core().V1().Nodes().Informer()
	// One value is enough: a newer one replaces what was not taken yet.
	seen := make(chan *corev1.Node, 1)
	offer := func(o any) {
		if n, ok := o.(*corev1.Node); ok {
			select {
			case <-seen:
			default:
			}
			seen <- n
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: offer, UpdateFunc: func(_, o any) { offer(o) }}); err != nil {
		return fmt.Errorf("watch the node: %w", err)
	}
	watching, stop := context.WithCancel(ctx)
	factory.StartWithContext(watching)
	defer func() { stop(); factory.Shutdown() }()
	return a.followNode(ctx, client, seen)
}

// followNode acts on the Node object as it is seen.
func (a *agent) followNode(ctx context.Context, client kubernetes.Interface, seen <-chan *corev1.Node) error {
	var proxy chan error
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-proxy:
			return err
		case n := <-seen:
			if err := a.label(ctx, client, n); err != nil {
				a.Logger.Warn("the node's labels are not right yet", "err", err)
			}
			if n.Spec.PodCIDR == "" {
				continue
			}
			if err := a.open(n.Spec.PodCIDR); err != nil {
				return err
			}
			if proxy == nil {
				proxy = make(chan error, 1)
				go func() {
					proxy <- kube.RunProxy(ctx, kube.Proxy{Kubeconfig: a.ProxyKubeconfig, NodeName: a.NodeName, NodeIP: a.NodeIP.String(), OOMScoreAdj: a.machine.OOMScore()})
				}()
			}
		}
	}
}

// open opens the pod network for the node's range.
func (a *agent) open(cidr string) error {
	pods, err := netip.ParsePrefix(cidr)
	if err != nil {
		return fmt.Errorf("the node has the pod range %q: %w", cidr, err)
	}
	return node.WriteNetwork(a.layout, pods, a.cniSocket(), a.layout.Endpoints())
}

// cniSocket is where the CNI plugin finds this agent.
func (a *agent) cniSocket() string { return filepath.Join(a.layout.Run(), "cni.sock") }

// label corrects the labels that say which sandboxes the node offers.
func (a *agent) label(ctx context.Context, client kubernetes.Interface, n *corev1.Node) error {
	wrong := map[string]*string{}
	for k, want := range a.offer.Labels() {
		now, there := n.Labels[k]
		if there != (want != nil) || there && now != *want {
			wrong[k] = want
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": wrong}})
	if err != nil {
		return fmt.Errorf("label the node: %w", err)
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "sublet-agent"}); err != nil {
		return fmt.Errorf("label the node: %w", err)
	}
	return nil
}
