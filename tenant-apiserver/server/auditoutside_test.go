package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"sublet.dev/tenant-apiserver/plan"
)

// auditSink is an audit webhook: it takes events while it is told to.
type auditSink struct {
	*httptest.Server
	hangs chan struct{} // when closed, requests are not answered any more

	mu     sync.Mutex
	events []auditv1.Event
}

func newAuditSink(t *testing.T) *auditSink {
	s := &auditSink{hangs: make(chan struct{})}
	end := make(chan struct{})
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.hangs:
			select {
			case <-r.Context().Done():
			case <-end:
			}
			return
		default:
		}
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, list.Items...)
	}))
	t.Cleanup(func() { close(end); s.Close() })
	return s
}

// of returns the events about objects of a name.
func (s *auditSink) of(name string) []auditv1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []auditv1.Event
	for _, e := range s.events {
		if e.ObjectRef != nil && e.ObjectRef.Name == name {
			found = append(found, e)
		}
	}
	return found
}

// kubeconfig names the sink.
func (s *auditSink) kubeconfig(t *testing.T) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["x"] = &clientcmdapi.Cluster{Server: s.URL, InsecureSkipTLSVerify: true}
	c.Contexts["x"], c.CurrentContext = &clientcmdapi.Context{Cluster: "x"}, "x"
	path := filepath.Join(t.TempDir(), "audit.kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// audited is a tenant with an audit log and a webhook.
func audited(t *testing.T, name string, i int, sink *auditSink) *member {
	t.Helper()
	c := tenantConfig(t.TempDir(), name, i)
	c.GoldenDir, c.AuditLog, c.ID = w.golden, filepath.Join(t.TempDir(), "audit.log"), "id-of-"+name
	c.Terms = plan.Terms{Audit: plan.AuditRequest}
	if sink != nil {
		c.AuditWebhook = sink.kubeconfig(t)
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
	return m
}

// The webhook gets what the file gets, with the tenant's name, secrets without their
// content; a webhook that hangs keeps neither requests nor the end waiting.
func TestAuditWebhook(t *testing.T) {
	sink := newAuditSink(t)
	m := audited(t, "sent", 10, sink)
	k := client(t, m.as(t, "jane", "system:masters"))
	ns := namespace(t, k)
	const password = "correct-horse"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "told"}, StringData: map[string]string{"p": password}}
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "told"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}
	if _, err := k.CoreV1().Services(ns).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var events []auditv1.Event
	await(t, "the events", func(context.Context) (bool, error) { events = sink.of("told"); return len(events) == 2, nil })
	for _, e := range events {
		if e.Annotations["sublet.dev/tenant"] != "sent" || e.Annotations["sublet.dev/tenant-id"] != "id-of-sent" || e.User.Username != "jane" {
			t.Errorf("%+v", e)
		}
		if (e.RequestObject != nil) != (e.ObjectRef.Resource == "services") {
			t.Errorf("a %s has its content: %v", e.ObjectRef.Resource, e.RequestObject != nil)
		}
	}
	if text, _ := json.Marshal(events); strings.Contains(string(text), password) {
		t.Error("a secret was sent")
	}
	// The file is the tenant's own, without the provider's annotations.
	data, err := os.ReadFile(m.config.AuditLog)
	if err != nil || strings.Contains(string(data), "sublet.dev/tenant") || !strings.Contains(string(data), "told") {
		t.Errorf("the file: %v", err)
	}
	close(sink.hangs)
	for n := range webhookEvents {
		name := fmt.Sprintf("more-%d", n)
		if _, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(name, "x"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// webhookEvents is more than is sent at once.
const webhookEvents = 450

// The tenant's administrators, and whom they allow it, read the tenant's log; nobody
// else does, and nobody another's.
func TestReadAudit(t *testing.T) {
	m := audited(t, "read", 11, nil)
	admin := client(t, m.admin(t))
	ns := namespace(t, admin)
	for n := range 5 {
		if _, err := admin.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(fmt.Sprintf("one-%d", n), "correct-horse"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "auditor"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{AuditURL}}},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "auditor"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "auditor"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "auditor"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	read := func(m *member, user, query string, groups ...string) (int, string) {
		t.Helper()
		r, err := get(t, m.as(t, user, groups...), AuditURL+query)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	await(t, "the role to be known", func(context.Context) (bool, error) {
		code, _ := read(m, "auditor", "")
		return code == http.StatusOK, nil
	})
	code, body := read(m, "admin", "", "system:masters")
	if code != http.StatusOK || !strings.Contains(body, `"one-4"`) || strings.Contains(body, "correct-horse") {
		t.Errorf("the administrator gets %d: %s", code, body)
	}
	for line := range strings.Lines(body) {
		if err := json.Unmarshal([]byte(line), &auditv1.Event{}); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	if code, _ := read(m, "joe", ""); code != http.StatusForbidden {
		t.Errorf("somebody gets %d", code)
	}
	if code, body := read(w.b, "admin", "", "system:masters"); code != http.StatusNotFound || strings.Contains(body, "one-4") {
		t.Errorf("another tenant, whose requests are not recorded, gets %d: %s", code, body)
	}
	if code, _ := read(m, "admin", "?limit=0", "system:masters"); code != http.StatusBadRequest {
		t.Errorf("a limit of 0: %d", code)
	}
	if code, body := read(m, "admin", "?limit=2", "system:masters"); code != http.StatusOK || strings.Count(body, "\n") != 2 {
		t.Errorf("the last two: %d, %s", code, body)
	}
	followed(t, m, ns)
}

// followed reads on while things happen, as often as is allowed.
func followed(t *testing.T, m *member, ns string) {
	t.Helper()
	var open []*http.Response
	for range auditReaders {
		r, err := get(t, m.admin(t), AuditURL+"?follow=true&limit=1")
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", r, err)
		}
		defer r.Body.Close()
		open = append(open, r)
	}
	if r, err := get(t, m.admin(t), AuditURL); err != nil || r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more: %v, %v", r, err)
	}
	if _, err := client(t, m.admin(t)).CoreV1().ConfigMaps(ns).Create(t.Context(), configMap("later", "x"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range open {
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			if strings.Contains(lines.Text(), `"later"`) {
				break
			}
		}
	}
}

// The last lines are found wherever they are, in whatever files.
func TestLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a := &auditFile{path: path, max: 3 * tailBlock}
	const lines = 400
	for i := range lines {
		if _, err := fmt.Fprintf(a, "%03d %s\n", i, strings.Repeat("x", i*7%1500)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	if some, err := CopyAudit(t.Context(), &all, path, AuditQuery{}); !some || err != nil {
		t.Fatal(some, err)
	}
	for _, n := range []int{1, 2, 100, 250, lines, lines + 1} {
		var got strings.Builder
		if _, err := CopyAudit(t.Context(), &got, path, AuditQuery{Limit: n}); err != nil {
			t.Fatal(err)
		}
		kept := strings.SplitAfter(strings.TrimSuffix(all.String(), "\n"), "\n")
		want := strings.Join(kept[max(0, len(kept)-n):], "") + "\n"
		if got.String() != want {
			t.Errorf("the last %d: %d lines instead of %d", n, strings.Count(got.String(), "\n"), strings.Count(want, "\n"))
		}
	}
	if some, err := CopyAudit(t.Context(), io.Discard, filepath.Join(t.TempDir(), "none"), AuditQuery{Limit: 3}); some || err != nil {
		t.Errorf("no log: %v, %v", some, err)
	}
}
