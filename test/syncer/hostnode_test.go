package syncer

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"sublet.dev/tenant-apiserver/pki"
)

// serveKubelet serves a fake kubelet of the host's node.
func (w *world) serveKubelet(ca *pki.Authority) (port int32, err error) {
	cert, err := ca.IssueServing(nil, []netip.Addr{netip.MustParseAddr(hostNodeIP)}, time.Hour)
	if err != nil {
		return 0, err
	}
	l, err := tls.Listen("tcp", hostNodeIP+":0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return 0, err
	}
	kubelet := &http.Server{Handler: fakeKubelet()}
	ended := make(chan error, 1)
	go func() { ended <- kubelet.Serve(l) }()
	w.stops = append(w.stops, func() { kubelet.Close(); <-ended })
	return int32(l.Addr().(*net.TCPAddr).Port), nil
}

// addNode adds a host node that is ready, and keeps it so.
func (w *world) addNode(ctx context.Context, kubeletPort int32) error {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"),
		corev1.ResourcePods: resource.MustParse("200"), corev1.ResourceEphemeralStorage: resource.MustParse("64Gi"),
	}
	node, err := w.host.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: hostNode,
		Labels: map[string]string{
			corev1.LabelHostname: hostNode, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			acme.Sandbox.NodeLabel(): "true", "rack": "secret",
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	status := corev1.NodeStatus{
		Capacity: amounts, Allocatable: amounts,
		Addresses:        []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: hostNodeIP}},
		Conditions:       []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
		DaemonEndpoints:  corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: kubeletPort}},
		NodeInfo:         corev1.NodeSystemInfo{KubeletVersion: "v1.37.1", OperatingSystem: "linux", Architecture: "amd64"},
		DeclaredFeatures: []string{"ExtendWebSocketsToKubelet"},
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error { // the node controllers write it too
		now, err := w.host.CoreV1().Nodes().Get(ctx, hostNode, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Status = status
		_, err = w.host.CoreV1().Nodes().UpdateStatus(ctx, now, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return w.beat(ctx, node)
}

// beat renews the node's lease, as its kubelet would.
func (w *world) beat(ctx context.Context, node *corev1.Node) error {
	leases := w.host.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	holder, seconds := node.Name, int32(40)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	renew := func() error {
		now := metav1.NowMicro()
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now}
		if lease.UID == "" {
			created, err := leases.Create(ctx, lease, metav1.CreateOptions{})
			if err == nil {
				lease = created
			}
			return err
		}
		updated, err := leases.Update(context.Background(), lease, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) { // an answer was lost
			updated, err = leases.Get(context.Background(), lease.Name, metav1.GetOptions{})
		}
		if err == nil {
			lease = updated
		}
		return err
	}
	if _, err := w.host.CoreV1().Namespaces().Get(ctx, corev1.NamespaceNodeLease, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}}
		if _, err := w.host.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	if err := renew(); err != nil {
		return err
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				_ = renew() // the next one tries again
			}
		}
	}()
	w.stops = append(w.stops, func() { close(stop); <-ended })
	return nil
}
