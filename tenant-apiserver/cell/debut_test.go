package cell_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// judge is a companion that refuses Services, and has logs.
type judge struct{ idle }

func (judge) Judge(o runtime.Object) ([]string, error) {
	if _, ok := o.(*corev1.Service); ok {
		return nil, errors.New("no Services here")
	}
	return nil, nil
}

// place makes a pod that is on a node.
func place(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "203.0.113.99"}},
	}}
	if _, err := k.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
		Containers:  []corev1.Container{{Name: "c", Image: "i"}},
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, // whatever the node lacks
	}}
	until(t, "there is the pod", func() error { // once there is the service account
		_, err := k.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
		return err
	})
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := k.CoreV1().Pods("default").Bind(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRequestsWaitForTheCompanion: who comes to a tenant that has just begun to run, as
// who wakes one does, with a request that its companion has to answer waits for that, and
// is not told that there is none.
func TestRequestsWaitForTheCompanion(t *testing.T) {
	t.Parallel()
	var reach apis
	hold, asked := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	logs := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a line") })
	_, client, dir := start(t, func(tn tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
		_, err := reach.companion(tn, api, nil)
		close(asked)
		<-hold
		return judge{idle{logs}}, err
	})
	a := tenantOf("uid-a", "a")
	there := make(chan error, 1)
	go func() {
		_, err := client.Put(t.Context(), a)
		there <- err
	}()
	<-asked
	place(t, reach.client(t, a.ID))
	k, leave := visitor(t, dir, a)
	defer leave()
	read, refusedAs := make(chan string, 1), make(chan error, 1)
	go func() {
		log, err := k.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{}).DoRaw(t.Context())
		read <- fmt.Sprint(string(log), err)
	}()
	go func() {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		_, err := k.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{})
		refusedAs <- err
	}()
	until(t, "both are under way", func() error {
		reading, writing := 0.0, 0.0
		for name, v := range numbers(t, k) {
			switch {
			case strings.HasPrefix(name, "apiserver_longrunning_requests"), strings.Contains(name, `{request_kind="readOnly"}`):
				reading += v // one of them is that for the numbers
			case strings.Contains(name, `{request_kind="mutating"}`):
				writing += v
			}
		}
		if reading < 2 || writing < 1 {
			return fmt.Errorf("%v are reading and %v writing", reading, writing)
		}
		return nil
	})
	release()
	if got := <-read; got != "a line<nil>" {
		t.Errorf("the log: %s", got)
	}
	if err := <-refusedAs; !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "no Services here") {
		t.Errorf("the Service: %v", err)
	}
	if err := <-there; err != nil {
		t.Error(err)
	}
}
