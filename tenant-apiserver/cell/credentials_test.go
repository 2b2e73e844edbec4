package cell_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

// credential is a client of a tenant's API through its socket, and the serial
// number of its certificate.
func credential(t *testing.T, dir string, tn cell.Tenant) (kubernetes.Interface, string) {
	t.Helper()
	a, err := pki.Load(cell.PKIDir(filepath.Join(dir, string(tn.ID))))
	if err != nil {
		t.Fatal(err)
	}
	request, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	leaf, cert, err := a.SignClient(request, "jane", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	data, err := pki.KubeconfigOptions{Server: "https://" + tn.ServerName, User: "jane"}.Write(a.CAPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, tn.ID.Short()+".sock"))
	}
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k, pki.Serial(leaf.SerialNumber)
}

// host wants the tenant to be hosted so, and to be ready.
func host(t *testing.T, client *cell.Client, tn cell.Tenant) {
	t.Helper()
	if s, err := client.Put(t.Context(), tn); err != nil || s.Phase != cell.Ready {
		t.Fatalf("Put = %+v, %v", s, err)
	}
}

// answers waits until the API answers such a client.
func answers(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, last = k.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("it does not answer: %v", last)
	}
}

// unauthorized wants the API to refuse such a client, and never to answer it. A
// connection that was cut as a credential was revoked is made again.
func unauthorized(t *testing.T, k kubernetes.Interface, what string) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, last = k.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if last == nil {
			return false, errors.New("it is answered")
		}
		return apierrors.IsUnauthorized(last), nil
	})
	if err != nil {
		t.Errorf("%s: %v (%v)", what, err, last)
	}
}

// Terms and revocations reach a tenant while it runs, and again when it is started
// anew.
func TestChangesWhileRunning(t *testing.T) {
	t.Parallel()
	c, client, dir := start(t, quiet)
	a := tenantOf("uid-a", "a")
	host(t, client, a)
	jane, serial := credential(t, dir, a)
	other, _ := credential(t, dir, a)
	answers(t, jane)
	before := c.Snapshot(t.Context(), 0)

	create := func(name string) error {
		_, err := other.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	a.Terms = plan.Terms{Plan: "none", Limits: plan.Limits{Resources: map[string]plan.Count{"secrets": 0}}}
	host(t, client, a)
	if err := create("x"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "the plan none allows 0 secrets") {
		t.Errorf("with other terms: %v", err)
	}
	a.Revoked = []string{serial}
	host(t, client, a)
	unauthorized(t, jane, "the revoked credential")
	a.Terms, a.Revoked = plan.Terms{}, nil
	host(t, client, a)
	if err := create("x"); err != nil {
		t.Errorf("with the terms it began with: %v", err)
	}
	unauthorized(t, jane, "a revocation was taken back")
	third, thirdSerial := credential(t, dir, a)
	answers(t, third)
	if err := client.Revoke(t.Context(), "uid-a", []string{thirdSerial}); err != nil {
		t.Fatal(err)
	}
	unauthorized(t, third, "a credential that Revoke named")
	if err := client.Revoke(t.Context(), "uid-other", nil); err == nil || !strings.Contains(err.Error(), "does not host") {
		t.Errorf("a tenant of elsewhere: %v", err)
	}
	if now := c.Snapshot(t.Context(), 0); now.Revision != before.Revision {
		t.Error("the tenant was restarted")
	}

	a.Revoked = []string{serial}
	a.ServerName = "other.test" // which restarts it
	host(t, client, a)
	if _, err := jane.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("the revoked credential works after a restart")
	}
	again, _ := credential(t, dir, a)
	answers(t, again)
}

// While the CA is being rotated, credentials of both CAs are good, and pods are
// told both; afterwards only the new one. Nothing is restarted: watches go on, but
// for those of the CA that is given up. A tenant that sleeps is woken, so that its pods
// are told.
func TestRotatedCA(t *testing.T) {
	t.Parallel()
	c, client, dir := start(t, quiet)
	a := sleeper("uid-a", "a")
	a.CAs = [2]int64{1, 1}
	host(t, client, a)
	old, _ := credential(t, dir, a)
	answers(t, old)
	before := c.Snapshot(t.Context(), 0)
	cut := watched(t, old)
	keys := cell.PKIDir(filepath.Join(dir, "uid-a"))

	authority, err := pki.Rotate(keys, 2)
	if err != nil {
		t.Fatal(err)
	}
	a.CAs = [2]int64{1, 2}
	host(t, client, a)
	fresh, _ := credential(t, dir, a)
	answers(t, old)
	answers(t, fresh)
	toldToPods(t, fresh, string(authority.CAPEM()))
	kept := watched(t, fresh)
	seen(t, fresh, "during", cut, kept)

	if authority, err = pki.Finish(keys); err != nil {
		t.Fatal(err)
	}
	a.CAs = [2]int64{2, 2}
	host(t, client, a)
	for range cut.ResultChan() { // until it is closed
	}
	answers(t, fresh)
	toldToPods(t, fresh, string(authority.CAPEM()))
	seen(t, fresh, "after", kept)
	if _, err := old.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("a credential of the old CA is still good")
	}
	if now := c.Snapshot(t.Context(), 0); now.Revision != before.Revision {
		t.Error("the tenant was restarted")
	}

	kept.Stop()
	utilnet.CloseIdleConnectionsFor(transportOf(t, fresh))
	lull(t, client, "uid-a")
	host := func(want cell.Phase) {
		t.Helper()
		if s, err := client.Put(t.Context(), a); err != nil || s.Phase != want {
			t.Fatalf("Put = %+v, %v", s, err)
		}
	}
	host(cell.Asleep)
	if authority, err = pki.Rotate(keys, 3); err != nil {
		t.Fatal(err)
	}
	a.CAs = [2]int64{2, 3}
	host(cell.Ready)
	toldToPods(t, fresh, string(authority.CAPEM()))
}

// watched opens a watch.
func watched(t *testing.T, k kubernetes.Interface) apiwatch.Interface {
	t.Helper()
	w, err := k.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// seen makes an object and wants watches to tell of it.
func seen(t *testing.T, k kubernetes.Interface, name string, watches ...apiwatch.Interface) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := k.CoreV1().ConfigMaps("default").Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, w := range watches {
		told := false
		for e := range w.ResultChan() {
			if m, ok := e.Object.(*corev1.ConfigMap); ok && m.Name == name {
				told = true
				break
			}
		}
		if !told {
			t.Errorf("watch %d was cut before it told of %s", i, name)
		}
	}
}

// transportOf is what a client's requests go through.
func transportOf(t *testing.T, k kubernetes.Interface) http.RoundTripper {
	t.Helper()
	c, ok := k.CoreV1().RESTClient().(*rest.RESTClient)
	if !ok {
		t.Fatalf("a client of type %T", k.CoreV1().RESTClient())
	}
	return c.Client.Transport
}

// toldToPods waits until pods are told to trust those CAs.
func toldToPods(t *testing.T, k kubernetes.Interface, want string) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		m, err := k.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if last = err; err == nil && m.Data["ca.crt"] != want {
			last = fmt.Errorf("they are told %d bytes, not %d", len(m.Data["ca.crt"]), len(want))
		}
		return last == nil, nil
	})
	if err != nil {
		t.Errorf("kube-root-ca.crt: %v", last)
	}
}

// A tenant that lost its keys is not given new ones.
func TestLostKeys(t *testing.T) {
	t.Parallel()
	_, client, dir := start(t, quiet)
	a := tenantOf("uid-a", "a")
	host(t, client, a)
	if err := client.Delete(t.Context(), "uid-a"); err != nil {
		t.Fatal(err)
	}
	keys := cell.PKIDir(filepath.Join(dir, "uid-a"))
	if err := os.Rename(keys, keys+".backup"); err != nil {
		t.Fatal(err)
	}
	s, err := client.Put(t.Context(), a)
	if err != nil || s.Phase != cell.Failed || s.Reason != cell.ReasonCAMissing || !strings.Contains(s.Message, "back from a backup") {
		t.Errorf("Put = %+v, %v", s, err)
	}
	if _, err := os.Stat(keys); err == nil {
		t.Error("it has keys")
	}
	if err := os.Rename(keys+".backup", keys); err != nil {
		t.Fatal(err)
	}
	await(t, client, "uid-a", func(s cell.Status) bool { return s.Phase == cell.Ready })
}
