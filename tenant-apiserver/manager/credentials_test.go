package manager_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/pki"
)

func newCredential(t *testing.T, tenant string) (*v1alpha1.Credential, []byte) {
	t.Helper()
	request, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.Credential{
		ObjectMeta: metav1.ObjectMeta{GenerateName: tenant + "-"},
		Spec:       v1alpha1.CredentialSpec{Tenant: tenant, User: "jane", Groups: []string{"system:masters"}, Request: request},
	}, key
}

// issued makes a credential, waits for what becomes of it, and returns a client
// with it when it was issued.
func (h *host) issued(t *testing.T, vc *v1alpha1.VirtualCluster, change ...func(*v1alpha1.Credential)) (*v1alpha1.Credential, kubernetes.Interface) {
	t.Helper()
	c, key := newCredential(t, vc.Name)
	for _, f := range change {
		f(c)
	}
	if err := h.api.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	h.awaitCredential(c, v1alpha1.ConditionIssued)
	if c.Status.NotAfter == nil {
		return c, nil
	}
	data, err := pki.KubeconfigOptions{Server: vc.Status.Endpoint, TLSServerName: vc.Status.ServerName, User: "jane"}.Write(c.Status.Authorities, c.Status.Certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c, k
}

// unauthorized wants a tenant's API to refuse such a client, and never to answer it. A
// connection that was cut as a credential was revoked is made again.
func (h *host) unauthorized(k kubernetes.Interface, what string) {
	h.t.Helper()
	h.eventually(what+" is refused", func() error {
		err := list(h.t.Context(), k)
		if err == nil {
			h.t.Fatalf("%s is answered", what)
		}
		if apierrors.IsUnauthorized(err) {
			return nil
		}
		return err
	})
}

func (h *host) awaitCredential(c *v1alpha1.Credential, condition string) {
	h.t.Helper()
	h.eventually("the credential has the condition "+condition, func() error {
		if err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		if meta.FindStatusCondition(c.Status.Conditions, condition) == nil {
			return fmt.Errorf("%+v", c.Status.Conditions)
		}
		return nil
	})
}

func (h *host) change(c client.Object, how func()) {
	h.t.Helper()
	h.eventually("change "+c.GetName(), func() error {
		if err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		how()
		return h.api.Update(h.t.Context(), c)
	})
}

func list(ctx context.Context, k kubernetes.Interface) error {
	_, err := k.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	return err
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	t.Run("what a credential cannot say is refused by the API", func(t *testing.T) { h.credentialValidation(t) })
	a, b := h.create("a"), h.create("b")
	counted := h.newKinds(t, b) // it takes half a minute, of which others make use
	t.Run("credentials are issued, recorded and revoked", func(t *testing.T) { h.credentials(t, a, b) })
	t.Run("a CA is rotated with overlap", func(t *testing.T) { h.rotatedCA(t, a) })
	t.Run("kinds that the host has not had for long are counted", counted)
	h.leavesNothing(t, a, b)
}

// credentialValidation wants credentials that mean nothing to be refused, and those
// there are not to be changed.
func (h *host) credentialValidation(t *testing.T) {
	for says, change := range map[string]func(*v1alpha1.Credential){
		"spec.tenant":             func(c *v1alpha1.Credential) { c.Spec.Tenant = "" },
		"spec.user":               func(c *v1alpha1.Credential) { c.Spec.User = "" },
		"spec.groups[0]":          func(c *v1alpha1.Credential) { c.Spec.Groups = []string{""} },
		"lifetime is at least 1s": func(c *v1alpha1.Credential) { c.Spec.Lifetime = &metav1.Duration{} },
		"spec.request":            func(c *v1alpha1.Credential) { c.Spec.Request = nil },
	} {
		c, _ := newCredential(t, "a")
		if err := h.api.Create(t.Context(), c.DeepCopy(), client.DryRunAll); err != nil {
			t.Fatalf("the credential without a mistake: %v", err)
		}
		change(c)
		if err := h.api.Create(t.Context(), c, client.DryRunAll); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("want a refusal that says %q: %v", says, err)
		}
	}
}

// credentials wants credentials to be good at their tenant alone, until they are
// revoked or deleted.
func (h *host) credentials(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	one, k := h.issued(t, a)
	_, kept := h.issued(t, a)
	if err := errors.Join(list(t.Context(), k), list(t.Context(), kept)); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(one.Status.NotAfter.Time); left < 23*time.Hour || left > 24*time.Hour || one.Status.Serial == "" || one.Status.Generation != 1 {
		t.Errorf("the record: %+v", one.Status)
	}
	if len(one.OwnerReferences) != 1 || one.OwnerReferences[0].UID != a.UID {
		t.Errorf("its owner: %+v", one.OwnerReferences)
	}
	crossed := a.DeepCopy()
	crossed.Status.ServerName = b.Status.ServerName
	if _, other := h.issued(t, crossed); list(t.Context(), other) == nil {
		t.Error("the credential of a works at b")
	}

	open, err := k.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := one.DeepCopy()
	other.Spec.User = "root"
	if err := h.api.Update(t.Context(), other); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "can't be changed") {
		t.Errorf("another user in a credential: %v", err)
	}
	h.change(one, func() { one.Spec.Revoked = true })
	h.awaitCredential(one, v1alpha1.ConditionRevoked)
	for range open.ResultChan() { // until it is closed
	}
	h.unauthorized(k, "a revoked credential")
	if err := list(t.Context(), kept); err != nil {
		t.Errorf("another credential: %v", err)
	}
	back := one.DeepCopy()
	back.Spec.Revoked = false
	if err := h.api.Update(t.Context(), back); !apierrors.IsInvalid(err) {
		t.Errorf("take a revocation back: %v", err)
	}
	h.lost(t, a)
	h.refused(t, a)
	h.left(t)
	h.cells.kill("cell-0")
	h.cells.run("cell-0")
	h.eventually("a answers", func() error { return list(t.Context(), kept) })
	h.unauthorized(k, "a revoked credential after a restart of the cell")
}

// lost wants a deleted credential to be refused, and its record to stay as long as
// somebody could use it.
func (h *host) lost(t *testing.T, a *v1alpha1.VirtualCluster) {
	gone, k := h.issued(t, a)
	if err := h.api.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	h.awaitCredential(gone, v1alpha1.ConditionRevoked)
	h.unauthorized(k, "a deleted credential")
	short, _ := h.issued(t, a, func(c *v1alpha1.Credential) { c.Spec.Lifetime = &metav1.Duration{Duration: time.Second} })
	if err := h.api.Delete(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	h.eventually("the record of an expired one goes", func() error {
		err := h.api.Get(t.Context(), client.ObjectKeyFromObject(short), short)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
}

// left wants the credentials of a tenant that is gone to go with it.
func (h *host) left(t *testing.T) {
	vc := h.create("passing")
	record, _ := h.issued(t, vc)
	if err := h.api.Delete(t.Context(), vc); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{vc, record} {
		h.eventually(o.GetName()+" is gone", func() error {
			err := h.api.Get(t.Context(), client.ObjectKeyFromObject(o), o)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is there"))
		})
	}
}

// refused wants what cannot be issued to say so.
func (h *host) refused(t *testing.T, a *v1alpha1.VirtualCluster) {
	for says, change := range map[string]func(*v1alpha1.Credential){
		"longer than the plan small allows": func(c *v1alpha1.Credential) { c.Spec.Lifetime = &metav1.Duration{Duration: 9000 * time.Hour} },
		"the request is no PEM block":       func(c *v1alpha1.Credential) { c.Spec.Request = []byte("junk") },
		`there is no tenant "nobody"`:       func(c *v1alpha1.Credential) { c.Spec.Tenant = "nobody" },
	} {
		c, _ := h.issued(t, a, change)
		is := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionIssued)
		if is.Status != metav1.ConditionFalse || !strings.Contains(is.Message, says) || len(c.Status.Certificate) > 0 {
			t.Errorf("want a refusal that says %q: %+v", says, c.Status)
		}
	}
}

// rotatedCA wants credentials of the old and of the new CA to be good until the
// rotation is finished.
func (h *host) rotatedCA(t *testing.T, a *v1alpha1.VirtualCluster) {
	_, old := h.issued(t, a)
	vc := &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}
	wait := func(oldest, generation int64) {
		h.eventually(fmt.Sprintf("the CAs are %d to %d", oldest, generation), func() error {
			if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(vc), vc); err != nil {
				return err
			}
			if s := vc.Status; s.Authority.Oldest != oldest || s.Authority.Generation != generation || s.Phase != v1alpha1.PhaseReady {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	wait(1, 1)
	h.change(vc, func() { vc.Spec.Authority.Generation = 2 })
	wait(1, 2)
	record, fresh := h.issued(t, vc)
	if record.Status.Generation != 2 {
		t.Errorf("the record: %+v", record.Status)
	}
	h.eventually("the old one is good", func() error { return list(t.Context(), old) })
	h.eventually("the new one is good", func() error { return list(t.Context(), fresh) })
	if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(vc), vc); err != nil {
		t.Fatal(err)
	}
	vc.Spec.Authority.Generation = 3
	if err := h.api.Update(t.Context(), vc); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "finish a rotation before the next") {
		t.Errorf("a second rotation: %v", err)
	}
	h.change(vc, func() { vc.Spec.Authority.Oldest = 2 })
	wait(2, 2)
	h.eventually("the new one is good", func() error { return list(t.Context(), fresh) })
	if err := list(t.Context(), old); err == nil {
		t.Error("a credential of the old CA is still good")
	}
}
