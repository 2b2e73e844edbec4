package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sublet.dev/tenant-apiserver/plan"
)

// recordedIn returns the events of an audit log about objects of a name.
func recordedIn(t *testing.T, path, name string) []auditv1.Event {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var events []auditv1.Event
	for line := range strings.Lines(string(data)) {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.ObjectRef != nil && e.ObjectRef.Name == name {
			events = append(events, e)
		}
	}
	return events
}

// The plan says what is recorded, also when it changes; secrets never are.
func TestAuditLog(t *testing.T) {
	c := tenantConfig(t.TempDir(), "audited", 7)
	c.GoldenDir, c.AuditLog = w.golden, filepath.Join(t.TempDir(), "audit.log")
	m, err := startMember(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	k := client(t, m.as(t, "jane", "system:masters"))
	ns := namespace(t, k)
	const password = "correct-horse"
	create := func(name string) {
		t.Helper()
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"password": password}}
		if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), configMap(name, password), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: "None"}}
		if _, err := k.CoreV1().Services(ns).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		level  plan.Level
		events int
		bodies []string // resources whose content is there
	}{{plan.AuditNone, 0, nil}, {plan.AuditMetadata, 3, nil}, {plan.AuditRequest, 3, []string{"services"}}, {"", 0, nil}} {
		m.server.SetTerms(plan.Terms{Audit: c.level})
		name := strings.ToLower("audit-" + string(c.level))
		create(strings.Trim(name, "-"))
		events := recordedIn(t, m.config.AuditLog, strings.Trim(name, "-"))
		if len(events) != c.events {
			t.Errorf("%q: %d events", c.level, len(events))
		}
		for _, e := range events {
			if e.User.Username != "jane" || e.Verb != "create" || e.ResponseStatus == nil || e.ResponseStatus.Code != 201 {
				t.Errorf("%q: %+v", c.level, e)
			}
			if has := e.RequestObject != nil; has != slices.Contains(c.bodies, e.ObjectRef.Resource) || e.ResponseObject != nil {
				t.Errorf("%q: the event of a %s has a body: %v", c.level, e.ObjectRef.Resource, has)
			}
		}
	}
	data, err := os.ReadFile(m.config.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), password) {
		t.Error("a secret is in the log")
	}
	if strings.Contains(string(data), "system:apiserver") {
		t.Error("the control plane's own requests are in the log")
	}
}

// Files are bounded in size and number, and no line is split.
func TestAuditFilesRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a := &auditFile{path: path, max: 100}
	line := func(i int) string { return fmt.Sprintf("line %02d %s\n", i, strings.Repeat("x", 30)) }
	const lines = 30
	for i := range lines {
		if i == lines/2 { // a restart goes on where it was
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = &auditFile{path: path, max: 100}
		}
		if _, err := a.Write([]byte(line(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	var kept string
	for n := AuditFiles; n >= 0; n-- {
		at := path
		if n > 0 {
			at = AuditPath(path, n)
		}
		data, err := os.ReadFile(at)
		if err != nil || len(data) > 100 || len(data) == 0 {
			t.Errorf("%s has %d bytes: %v", at, len(data), err)
		}
		kept += string(data)
	}
	var want string
	for i := lines - strings.Count(kept, "\n"); i < lines; i++ {
		want += line(i)
	}
	if kept != want || strings.Count(kept, "\n") < AuditFiles {
		t.Errorf("the files have\n%s", kept)
	}
	if _, err := os.Stat(AuditPath(path, AuditFiles+1)); err == nil {
		t.Error("there is a file too many")
	}
}
