package e2e_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// subresources uses a tenant's pods as developers do, through the tenant's API.
func subresources(t *testing.T, tenant string) {
	pod := pods(t, tenant, "app=web")[0].Name

	t.Run("logs", func(t *testing.T) {
		if out := machine.Kubectl(t, tenant, "logs", pod); !strings.Contains(out, "serving") {
			t.Errorf("logs: %q", out)
		}
	})

	t.Run("exec gives the command's exit code and both outputs", func(t *testing.T) {
		r := machine.TryKubectl(t, tenant, "exec", pod, "--", "/app", "nothing")
		if r.Code != 1 || !strings.Contains(r.Stderr, "usage: app") {
			t.Errorf("exec: %v", r)
		}
	})

	t.Run("attach", func(t *testing.T) {
		cmd := machine.Command("connect", tenant, "--", "kubectl", "attach", "-q", pod)
		stderr, err := cmd.StderrPipe() // the program logs to its standard error
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Signal(os.Interrupt) // attach goes on until it is told to end
			_ = cmd.Wait()                       // interrupted: always an error
		}()
		// A pod without its second tier logs each visit.
		machine.Kubectl(t, tenant, "scale", "rc/counter", "--replicas=0")
		machine.Kubectl(t, tenant, "wait", "--for=delete", "pod", "-l", "app=counter", "--timeout=5m")
		defer machine.Kubectl(t, tenant, "rollout", "status", "deployment/web", "--timeout=5m")
		defer machine.Kubectl(t, tenant, "scale", "rc/counter", "--replicas=1")
		machine.TryKubectl(t, tenant, "exec", pod, "--", "/app", "visit", "http://localhost:8080/")
		line, err := bufio.NewReader(stderr).ReadString('\n')
		if err != nil || !strings.Contains(line, "second tier did not answer") {
			t.Errorf("attach read %q, %v", line, err)
		}
	})

	t.Run("port-forward", func(t *testing.T) {
		cmd := machine.Command("connect", tenant, "--", "kubectl", "port-forward", "pod/"+pod, ":8080")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Signal(os.Interrupt) // port-forward goes on until it is told to end
			_ = cmd.Wait()                       // interrupted: always an error
		}()
		line, err := bufio.NewReader(stdout).ReadString('\n')
		port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
		if err != nil || port == nil {
			t.Fatalf("port-forward said %q, %v", line, err)
		}
		resp, err := http.Get("http://127.0.0.1:" + port[1] + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok\n" {
			t.Errorf("the forwarded port answered %q, %v", body, err)
		}
	})

	t.Run("cp there and back", func(t *testing.T) {
		dir := t.TempDir()
		there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
		content := strings.Repeat("a line of a file\n", 5000)
		if err := os.WriteFile(there, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		machine.Kubectl(t, tenant, "cp", there, pod+":/tmp/file")
		machine.Kubectl(t, tenant, "cp", pod+":/tmp/file", back)
		if got, err := os.ReadFile(back); err != nil || string(got) != content {
			t.Errorf("%d bytes came back of %d, %v", len(got), len(content), err)
		}
	})

	t.Run("another tenant's pod name is nobody's", func(t *testing.T) {
		r := machine.TryKubectl(t, tenant, "logs", "no-such-pod")
		if r.Code == 0 || !strings.Contains(r.Stderr, "not found") {
			t.Errorf("logs of a pod that is not there: %v", r)
		}
	})
}
