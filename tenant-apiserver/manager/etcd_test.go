package manager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/cell"
)

// nowhere is an address at which nobody listens.
const nowhere = "https://127.0.0.1:1"

func onEtcd(name string, change ...func(*v1alpha1.EtcdStore)) *v1alpha1.VirtualCluster {
	etcd := &v1alpha1.EtcdStore{Endpoints: []string{nowhere}}
	for _, c := range change {
		c(etcd)
	}
	return &v1alpha1.VirtualCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.VirtualClusterSpec{Store: &v1alpha1.StoreSpec{Etcd: etcd}},
	}
}

func TestEtcd(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	t.Run("what an etcd cannot be is refused by the API", func(t *testing.T) { h.etcdValidation(t) })
	t.Run("tenants on an etcd that cannot be used say why", func(t *testing.T) { h.etcdStores(t) })
}

// etcdValidation wants stores refused that cannot be.
func (h *host) etcdValidation(t *testing.T) {
	for what, change := range map[string]func(*v1alpha1.EtcdStore){
		"no endpoint":           func(e *v1alpha1.EtcdStore) { e.Endpoints = nil },
		"a file":                func(e *v1alpha1.EtcdStore) { e.Endpoints = []string{"file:///etc/passwd"} },
		"another tenant's file": func(e *v1alpha1.EtcdStore) { e.Endpoints = []string{"bbolt://a-1"} },
		"two in one":            func(e *v1alpha1.EtcdStore) { e.Endpoints = []string{nowhere + "," + nowhere} },
		"a path":                func(e *v1alpha1.EtcdStore) { e.Endpoints = []string{nowhere + "/x"} },
		"a password in the URL": func(e *v1alpha1.EtcdStore) { e.Endpoints = []string{"https://a:b@127.0.0.1:1"} },
		"everything":            func(e *v1alpha1.EtcdStore) { e.Prefix = "/" },
		"no slash at the end":   func(e *v1alpha1.EtcdStore) { e.Prefix = "/a" },
		"a zero in the prefix":  func(e *v1alpha1.EtcdStore) { e.Prefix = "/a\x00/" },
		"credentials without TLS": func(e *v1alpha1.EtcdStore) {
			e.Endpoints = []string{"http://127.0.0.1:1"}
			e.Auth = &v1alpha1.EtcdAuth{SecretName: "x"}
		},
		"credentials without names": func(e *v1alpha1.EtcdStore) { e.TLS = &v1alpha1.EtcdTLS{} },
	} {
		if err := h.api.Create(t.Context(), onEtcd("bad", change)); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// etcdStores follows tenants whose etcd cannot be used, and one's way to where it can
// be asked. They never run, and can be deleted all the same.
func (h *host) etcdStores(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace}}
	if err := h.api.Create(t.Context(), namespace); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	first := onEtcd("first", func(e *v1alpha1.EtcdStore) { e.Auth = &v1alpha1.EtcdAuth{SecretName: "creds"} })
	if err := h.api.Create(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	h.awaitReason("first", "StoreUnusable", "Secret sublet-system/creds does not exist")
	h.eventually("others are younger", func() error { // by the whole seconds that creation times have
		if !time.Now().Truncate(time.Second).After(first.CreationTimestamp.Time) {
			return errors.New("it is the same second")
		}
		return nil
	})
	inside := onEtcd("inside", func(e *v1alpha1.EtcdStore) { e.Prefix = "/sublet/first/in/" })
	same := onEtcd("same", func(e *v1alpha1.EtcdStore) { e.Prefix = "/sublet/first/" })
	beside := onEtcd("first2") // "/sublet/first2/" only begins with the same letters
	for _, vc := range []*v1alpha1.VirtualCluster{inside, same, beside} {
		if err := h.api.Create(t.Context(), vc); err != nil {
			t.Fatal(err)
		}
	}
	h.awaitReason("inside", "StoreUnusable", "overlaps with that of tenant")
	h.awaitReason("same", "StoreUnusable", "overlaps with that of tenant")
	h.awaitReason("first2", cell.ReasonEtcd, "does not answer")
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: "creds"},
		Data:       map[string][]byte{"username": []byte("u"), "password": []byte("hush-hush")},
	}
	if err := h.api.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	c := h.awaitReason("first", cell.ReasonEtcd, "does not answer")
	if strings.Contains(c.Message, "hush-hush") {
		t.Errorf("the condition tells the password: %s", c.Message)
	}
	h.remove(inside, same, beside, first)
}

// awaitReason waits until a tenant failed for a reason.
func (h *host) awaitReason(name, reason, message string) *metav1.Condition {
	h.t.Helper()
	var c *metav1.Condition
	h.eventually(name+" fails with "+reason, func() error {
		vc := &v1alpha1.VirtualCluster{}
		if err := h.api.Get(h.t.Context(), client.ObjectKey{Name: name}, vc); err != nil {
			return err
		}
		c = meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || vc.Status.Phase != v1alpha1.PhaseFailed || c.Reason != reason || !strings.Contains(c.Message, message) {
			return fmt.Errorf("phase %s, condition %+v", vc.Status.Phase, c)
		}
		return nil
	})
	return c
}
