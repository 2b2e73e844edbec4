package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
)

const (
	// maxPods fits in the /24 that a node has for its pods.
	maxPods = 240
	// podPids bounds the processes of a pod, so that one pod cannot use up the
	// machine's. A gVisor sandbox needs some for itself.
	podPids = 8192
	// kubeletOOM is the kubelet's own choice of score
	// (pkg/kubelet/qos, KubeletOOMScoreAdj).
	kubeletOOM = -999
)

// KubeletFiles are the files that the kubelet serves with.
type KubeletFiles struct {
	// Cert and Key are its serving certificate, valid for the node's address.
	Cert, Key string
	// ClientCA verifies who may speak to it: the front and nobody else.
	ClientCA string
}

// OOMScore is the OOM score that this machine lets us ask for.
func (m Machine) OOMScore() int {
	if m.SysResource {
		return kubeletOOM
	}
	return 0
}

// WriteKubeletConfig writes the kubelet's configuration and returns its path.
func WriteKubeletConfig(l Layout, m Machine, f KubeletFiles) (string, error) {
	raw, err := json.MarshalIndent(kubeletConfig(l, m, f), "", "  ")
	if err != nil {
		return "", fmt.Errorf("render the kubelet's configuration: %w", err)
	}
	path := filepath.Join(l.Agent(), "kubelet.json")
	return path, writeFile(path, raw, 0o600)
}

// kubeletConfig says what differs from the kubelet's defaults, and why.
func kubeletConfig(l Layout, m Machine, f KubeletFiles) *kubeletv1.KubeletConfiguration {
	c := &kubeletv1.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: kubeletv1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		ContainerRuntimeEndpoint: "unix://" + l.Socket(),
		PodLogsDir:               l.PodLogs(),
		VolumePluginDir:          filepath.Join(l.KubeletRoot(), "volumeplugins"),
		MaxPods:                  maxPods,
		PodPidsLimit:             ptr.To[int64](podPids),
		SeccompDefault:           ptr.To(true),
		// A registry of one tenant's that never answers keeps nobody else's pods waiting.
		SerializeImagePulls: ptr.To(false),
		SyncFrequency:       metav1.Duration{Duration: 30 * time.Second},
		ClusterDomain:       tenant.ClusterDomain,
		OOMScoreAdj:         ptr.To(int32(m.OOMScore())),

		// Only the front reaches the kubelet, on loopback and with a certificate
		// of its own; it is the one that asks who the caller is.
		Address:            "127.0.0.1",
		Port:               KubeletPort,
		TLSCertFile:        f.Cert,
		TLSPrivateKeyFile:  f.Key,
		HealthzPort:        ptr.To[int32](0),
		HealthzBindAddress: "127.0.0.1",
		Authentication:     onlyClientsOf(f.ClientCA),
		Authorization:      kubeletv1.KubeletAuthorization{Mode: kubeletv1.KubeletAuthorizationModeAlwaysAllow},

		// Everything of this node is in one cgroup, made by the agent. cgroupfs
		// works with and without systemd, on both versions.
		CgroupDriver:           "cgroupfs",
		CgroupRoot:             l.Cgroup(),
		FailCgroupV1:           ptr.To(false),
		FailSwapOn:             ptr.To(false),
		EvictionHard:           map[string]string{"memory.available": "100Mi", "nodefs.available": "3%", "nodefs.inodesFree": "3%"},
		MakeIPTablesUtilChains: ptr.To(false),

		// Images enter by import and may exist nowhere else: none is removed for
		// space. 100 switches that off (pkg/kubelet/images, image_gc_manager.go).
		ImageGCHighThresholdPercent: ptr.To[int32](100),
		ImageGCLowThresholdPercent:  ptr.To[int32](99),
	}
	if _, err := os.Stat("/etc/resolv.conf"); err != nil {
		c.ResolverConfig = ptr.To("") // none: pods then get no resolver of the host
	}
	return c
}

// onlyClientsOf accepts certificates of a CA and nothing else.
func onlyClientsOf(ca string) kubeletv1.KubeletAuthentication {
	return kubeletv1.KubeletAuthentication{
		X509:      kubeletv1.KubeletX509Authentication{ClientCAFile: ca},
		Webhook:   kubeletv1.KubeletWebhookAuthentication{Enabled: ptr.To(false)},
		Anonymous: kubeletv1.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
	}
}
