package server

import (
	"context"
	"encoding/json"
	"net"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"sublet.dev/test/issuer"
)

// issuers is a configuration with one issuer, which is connected to directly.
func issuers(t *testing.T, i *issuer.Issuer) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
		"jwt": []any{map[string]any{
			"issuer": map[string]any{"url": i.URL(), "audiences": []string{"a"}, "certificateAuthority": i.CA(), "egressSelectorType": "controlplane"},
			"claimMappings": map[string]any{
				"username": map[string]any{"expression": "claims.sub"},
				"groups":   map[string]any{"expression": "claims.groups"},
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// bearer is a client configuration with a token and no certificate.
func (m *member) bearer(t *testing.T, token string) *rest.Config {
	t.Helper()
	c := rest.AnonymousClientConfig(m.admin(t))
	c.BearerToken = token
	return c
}

// Users of an issuer have the rights that the tenant gives them, in that tenant
// alone, while the provider names the issuer.
func TestIssuers(t *testing.T) {
	is := issuer.New(t)
	admin := client(t, w.a.admin(t))
	ns := namespace(t, admin)
	if err := w.a.server.SetAuthentication(issuers(t, is)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.a.server.SetAuthentication(nil); err != nil {
			t.Error(err)
		}
	})
	_, err := admin.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "dev"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "Group", Name: "dev"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := func(m *member, token string) error {
		_, err := client(t, m.bearer(t, token)).CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
		return err
	}
	jane := is.Token(is.Claims("a", "jane@example.org", "dev"))
	await(t, "the role to be known", func(context.Context) (bool, error) { return list(w.a, jane) == nil, nil })
	review, err := client(t, w.a.bearer(t, jane)).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || review.Status.UserInfo.Username != "jane@example.org" {
		t.Errorf("who she is: %+v, %v", review, err)
	}
	for name, token := range map[string]string{
		"masters": is.Token(is.Claims("a", "jane@example.org", "dev", "system:masters")),
		"a node":  is.Token(is.Claims("a", "system:node:x", "system:nodes")),
		"b's":     is.Token(is.Claims("b", "jane@example.org", "dev")),
		"HS256":   is.Confused(is.Claims("a", "jane@example.org", "dev")),
	} {
		if err := list(w.a, token); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := list(w.a, is.Token(is.Claims("a", "joe@example.org", "ops"))); !apierrors.IsForbidden(err) {
		t.Errorf("another group: %v", err)
	}
	for _, m := range []*member{w.b, w.host} {
		if err := list(m, jane); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	if err := w.a.server.SetAuthentication([]byte("nonsense")); err == nil || list(w.a, jane) != nil {
		t.Errorf("nonsense: %v", err)
	}
	if err := w.a.server.SetAuthentication(nil); err != nil {
		t.Fatal(err)
	}
	if err := list(w.a, jane); !apierrors.IsUnauthorized(err) {
		t.Errorf("after the issuer was taken away: %v", err)
	}
}

// An issuer that does not ask for a direct connection is reached through the tenant's
// dialer alone, and without one not at all.
func TestIssuersTakeTheDialer(t *testing.T) {
	is := issuer.New(t)
	c := tenantConfig(t.TempDir(), "dialled", 9)
	c.GoldenDir = w.golden
	dialled := make(chan string, 100)
	c.DialIssuer = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled <- address
		return nil, net.ErrClosed
	}
	m, err := startMember(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	var document map[string]any
	if err := json.Unmarshal(issuers(t, is), &document); err != nil {
		t.Fatal(err)
	}
	delete(document["jwt"].([]any)[0].(map[string]any)["issuer"].(map[string]any), "egressSelectorType")
	data, err := json.Marshal(document)
	if err == nil {
		err = m.server.SetAuthentication(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	if address := <-dialled; "https://"+address != is.URL() {
		t.Errorf("it dialled %s", address)
	}
	if n := is.Asked.Load(); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
	// The same issuer, directly.
	if err := m.server.SetAuthentication(issuers(t, is)); err != nil {
		t.Fatal(err)
	}
	await(t, "the issuer to be asked", func(context.Context) (bool, error) { return is.Asked.Load() > 0, nil })
}
