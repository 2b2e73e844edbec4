package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/tenant-apiserver/turns"
)

// entrance keeps pods that are being made until they are let through.
type entrance struct {
	entered chan string
	let     map[string]chan struct{} // by name; made before
}

func (e *entrance) validate(p *corev1.Pod) error {
	if strings.HasPrefix(p.Name, "turn-") {
		e.entered <- p.Name
		<-e.let[p.Name]
	}
	return nil
}

// taking is a tenant whose requests share one processor with those of others.
func (e *entrance) taking(t *testing.T, one *turns.Turns, name string, i int) (*member, kubernetes.Interface) {
	t.Helper()
	c := tenantConfig(t.TempDir(), name, i)
	c.GoldenDir, c.turns, c.turn, c.ValidatePod = w.golden, one, time.Hour, e.validate
	m, err := startMember(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	k := client(t, m.admin(t))
	await(t, "service account", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	return m, k
}

// A tenant that makes many requests at a time has as many of them carried out as one
// may that is alone. When another one asks, its request is the next, before all that
// wait; and from then on the first gets its part only.
func TestTenantsTakeTurns(t *testing.T) {
	const requests = 2 * turns.Ahead
	e := &entrance{entered: make(chan string, 100), let: map[string]chan struct{}{}}
	names := []string{"turn-quiet-0", "turn-quiet-1"}
	for n := range requests {
		names = append(names, fmt.Sprintf("turn-flood-%d", n))
	}
	for _, name := range names {
		e.let[name] = make(chan struct{})
	}
	one := turns.New(1)
	flood, floods := e.taking(t, one, "flood", 61)
	quiet, quiets := e.taking(t, one, "quiet", 62)
	made := make(chan error, len(names))
	create := func(k kubernetes.Interface, name string) {
		go func() {
			_, err := k.CoreV1().Pods(metav1.NamespaceDefault).Create(context.Background(), pod(name), metav1.CreateOptions{})
			made <- err
		}()
	}
	for _, name := range names[2:] {
		create(floods, name)
	}
	wait := func(m *member, n int) {
		await(t, fmt.Sprintf("%d requests to wait", n), func(context.Context) (bool, error) {
			return m.server.guard.turns.Waiting() == n, nil
		})
	}
	wait(flood, requests-turns.Ahead)
	var within []string
	for range turns.Ahead {
		within = append(within, <-e.entered)
	}
	create(quiets, names[0])
	wait(quiet, 1)
	close(e.let[within[0]])
	if name := <-e.entered; name != names[0] {
		t.Errorf("%s is next, before %s", name, names[0])
	}
	close(e.let[within[1]])
	close(e.let[names[0]])
	create(quiets, names[1])
	if name := <-e.entered; name != names[1] {
		t.Errorf("%s is next, before %s", name, names[1])
	}
	if n := flood.server.guard.turns.Waiting(); n != requests-turns.Ahead {
		t.Errorf("%d requests of the flood wait; one was taken before its turn", n)
	}
	for _, name := range append(names[1:], within[1:]...) {
		select {
		case <-e.let[name]:
		default:
			close(e.let[name])
		}
	}
	for range names {
		if err := <-made; err != nil {
			t.Error(err)
		}
	}
}

// Lists of built-in objects keep their turns as long as they compute; what may wait for
// the tenant's own servers does not.
func TestTurnsOfLists(t *testing.T) {
	g := newGuard(nil, nil, 0)
	for target, want := range map[string]time.Duration{
		"/api/v1/configmaps":                           listTurn,
		"/apis/apps/v1/namespaces/x/deployments":       listTurn,
		"/apis/rbac.authorization.k8s.io/v1/roles":     listTurn,
		"/apis/example.org/v1/things":                  requestTurn,
		"/api/v1/namespaces/x/configmaps/y":            requestTurn,
		"/api/v1/configmaps?watch=true":                requestTurn,
		"/api/v1/namespaces/x/pods/y/log":              requestTurn,
		"/healthz":                                     requestTurn,
		"/api/v1/namespaces/x/services/y/proxy/a/list": requestTurn,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		info, err := requests.NewRequestInfo(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.turnOf(info); got != want {
			t.Errorf("%s has a turn of %s, want %s", target, got, want)
		}
	}
}
