package e2e_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

// tight is a plan with which nobody can do much.
const tight = `
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: tight}
spec:
  hostResources: {pods: 17}
  objects: {resources: {secrets: 0}}
  credentials: {lifetime: 1h, maxLifetime: 2h}
  egress: {internet: false}
  audit: Metadata
  imageRegistries: [registry.example.org/team]
  priorityClasses: [planned-first]
`

// A tenant's plan changes while its pods run.
func TestPlanChange(t *testing.T) {
	t.Parallel()
	tenants(t, "planned")
	file := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(file, []byte(tight), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Host(t, "apply", "-f", file)
	before := webPods(t, "planned")
	secret := func(name string) machine.Result {
		return machine.TryKubectl(t, "planned", "create", "secret", "generic", name, "--from-literal=a=b")
	}
	if r := secret("first"); r.Code != 0 {
		t.Fatalf("with the plan small: %v", r)
	}
	internet := fmt.Sprintf("%s:%d", wire.Internet, wire.Port)
	reaches(t, "planned", internet)

	machine.Sublet(t, "plan", "set", "planned", "tight")
	machine.Eventually(t, "the plan holds", func() error {
		if r := secret("second"); r.Code == 0 || !strings.Contains(r.Stderr, "the plan tight allows 0 secrets") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if log := machine.Sublet(t, "logs", "planned", "--audit"); !strings.Contains(log, `"resource":"secrets"`) || !strings.Contains(log, `"username":"admin"`) || strings.Contains(log, "stringData") {
		t.Errorf("the audit log:\n%s", log)
	}
	if own := machine.Kubectl(t, "planned", "get", "--raw", "/logs/audit?limit=50"); !strings.Contains(own, `"resource":"secrets"`) {
		t.Errorf("the audit log as the tenant reads it:\n%s", own)
	}
	if own := machine.Kubectl(t, "planned", "get", "--raw", "/metrics"); !strings.Contains(own, `resource="secrets"`) || strings.Contains(own, "tenant=") {
		t.Errorf("the tenant's metrics:\n%s", own)
	}
	if all := machine.Host(t, "get", "--raw", "/metrics/tenants"); !strings.Contains(all, `sublet_tenant_phase{phase="Ready",tenant="planned"} 1`) || !strings.Contains(all, `resource="secrets"`) {
		t.Errorf("the provider's metrics:\n%s", all)
	}
	machine.Eventually(t, "the internet is out of reach", func() error {
		if r := app(t, "planned", "dial", internet); r.Code == 0 || !strings.Contains(r.Stderr, "app: dial") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	namespace := strings.TrimSpace(machine.Host(t, "get", "vc", "planned", "-o", "jsonpath={.status.namespace}"))
	machine.Eventually(t, "the pods on the host", func() error {
		if pods := machine.Host(t, "get", "resourcequota", "sublet-pods", "-n", namespace, "-o", "jsonpath={.spec.hard.pods}"); pods != "17" {
			return fmt.Errorf("%s pods", pods)
		}
		return nil
	})
	imagesFrom(t, namespace)
	priorityOffered(t, namespace)
	if r := machine.Try(t, "kubeconfig", "planned", "--ttl", "3h"); r.Code == 0 || !strings.Contains(r.Stderr, "longer than the plan tight allows") {
		t.Errorf("a kubeconfig beyond the plan: %v", r)
	}
	if out, err := deletePlan("tight"); err == nil || !strings.Contains(out, "the plan tight is that of the tenant planned") {
		t.Errorf("delete a plan in use: %v %s", err, out)
	}
	issuers(t, "planned")

	machine.Sublet(t, "plan", "set", "planned", "small")
	machine.Eventually(t, "the plan holds no more", func() error {
		if r := secret("third"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	machine.Eventually(t, "the internet is back", func() error {
		if r := app(t, "planned", "dial", internet); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	machine.Eventually(t, "the class of the plan is gone", func() error {
		if r := machine.TryKubectl(t, "planned", "get", "priorityclass", "planned-first"); !strings.Contains(r.Stderr, "NotFound") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	machine.Eventually(t, "a plan that nobody has is deleted", func() error {
		out, err := deletePlan("tight")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if after := webPods(t, "planned"); after != before {
		t.Errorf("pods were touched:\n%s\n%s", before, after)
	}
}

// issuers names issuers whose tokens a tenant takes, and takes them back.
func issuers(t *testing.T, tenant string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "issuers.yaml")
	if err := os.WriteFile(file, []byte(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: https://issuer.example.org, audiences: [acme]}
  claimMappings: {username: {claim: sub, prefix: "x:"}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	applied := func() string {
		return machine.Host(t, "get", "vc", tenant, "-o", `jsonpath={.status.conditions[?(@.type=="AuthenticationApplied")].status}`)
	}
	for _, c := range []struct {
		args []string
		want string
	}{{[]string{"set", tenant, file}, "True"}, {[]string{"clear", tenant}, ""}} {
		machine.Sublet(t, append([]string{"authentication"}, c.args...)...)
		machine.Eventually(t, "the issuers hold", func() error {
			if got := applied(); got != c.want {
				return fmt.Errorf("AuthenticationApplied is %q", got)
			}
			return nil
		})
	}
}

// imagesFrom tries where the tight plan's images may come from: at the tenant's API, and
// at the host's with one of the tenant's pods, whose image can be changed.
func imagesFrom(t *testing.T, namespace string) {
	t.Helper()
	hostPod := strings.TrimSpace(machine.Host(t, "get", "pods", "-n", namespace, "-o", "jsonpath={.items[0].metadata.name} {.items[0].spec.containers[0].name}"))
	name, container, _ := strings.Cut(hostPod, " ")
	for image, allowed := range map[string]bool{"registry.example.org/team/app:1": true, "sublet.dev/quickstart:2": true, "registry.example.org/app:1": false, "nginx": false} {
		machine.Eventually(t, image+" at the tenant's API", func() error {
			r := machine.TryKubectl(t, "planned", "run", "from", "--image="+image, "--dry-run=server")
			if (r.Code == 0) != allowed || !allowed && !strings.Contains(r.Stderr, "[image-registry]") {
				return fmt.Errorf("allowed shall be %v: %v", allowed, r)
			}
			return nil
		})
		machine.Eventually(t, image+" at the host's", func() error {
			patch := fmt.Sprintf(`{"spec":{"containers":[{"name":%q,"image":%q}]}}`, container, image)
			out, err := onHostAPI("patch", "pod", name, "-n", namespace, "--dry-run=server", "-p", patch)
			if (err == nil) != allowed || !allowed && !strings.Contains(out, "images from the registries of their tenant's plan") {
				return fmt.Errorf("allowed shall be %v: %v: %s", allowed, err, out)
			}
			return nil
		})
	}
}

// priorityOffered tries the tight plan's PriorityClass: the tenant sees it once the host has
// it, and no other, and the host's fence knows it.
func priorityOffered(t *testing.T, namespace string) {
	t.Helper()
	for _, class := range []string{"planned-first", "planned-other"} {
		machine.Host(t, "create", "priorityclass", class, "--value=100", "--preemption-policy=Never", "--description=before others")
		t.Cleanup(func() { _, _ = onHostAPI("delete", "priorityclass", class) })
	}
	machine.Eventually(t, "the plan's PriorityClass", func() error {
		r := machine.TryKubectl(t, "planned", "get", "priorityclass", "planned-first", "-o", "jsonpath={.value} {.preemptionPolicy} {.description}")
		if r.Stdout != "100 Never before others" {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if r := machine.TryKubectl(t, "planned", "get", "priorityclass", "planned-other"); !strings.Contains(r.Stderr, "NotFound") {
		t.Errorf("another class of the host: %v", r)
	}
	if fenced := machine.Host(t, "get", "namespace", namespace, "-o", `jsonpath={.metadata.annotations.sublet\.dev/priority-classes}`); fenced != "planned-first" {
		t.Errorf("the host's fence lets pods have %q", fenced)
	}
	if out := machine.Sublet(t, "plan", "show", "tight"); !strings.Contains(out, "planned-first") {
		t.Errorf("the plan as it is shown:\n%s", out)
	}
}

func deletePlan(name string) (string, error) { return onHostAPI("delete", "plan", name) }

// onHostAPI is what kubectl says as the provider.
func onHostAPI(args ...string) (string, error) {
	args = append([]string{"--kubeconfig", filepath.Join(machine.DataDir(), "admin.kubeconfig")}, args...)
	out, err := exec.Command(filepath.Join(machine.Root, "bin/kubectl"), args...).CombinedOutput()
	return string(out), err
}

// webPods is the tenant's web pods with what changes when one is touched.
func webPods(t *testing.T, tenant string) string {
	t.Helper()
	return machine.Kubectl(t, tenant, "get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}")
}

// Revoking a kubeconfig ends what is open with it, in a tenant with real pods; a
// CA is rotated under them.
func TestRevokeAndRotate(t *testing.T) {
	t.Parallel()
	tenants(t, "issuer")
	machine.Image(t, "test/images/hostile", hostileImage)
	apply(t, "issuer", talker)
	machine.Kubectl(t, "issuer", "wait", "--for=condition=Ready", "pod/talker", "--timeout=5m")
	jane := kubeconfigFile(t, "issuer", "--user", "jane", "--group", "system:masters")
	kept := kubeconfigFile(t, "issuer", "--user", "kate", "--group", "system:masters")
	ended, open := streams(t, jane), streams(t, kept)
	if list := machine.Sublet(t, "kubeconfig", "list", "issuer"); !strings.Contains(list, "jane") || !strings.Contains(list, "valid") {
		t.Errorf("the list:\n%s", list)
	}

	begun := time.Now()
	machine.Sublet(t, "kubeconfig", "revoke", "issuer", "--user", "jane")
	for what, done := range ended {
		how := <-done
		t.Logf("%s had ended %v after it was asked for: %s", what, time.Since(begun), how)
	}
	goOn(t, open)
	if r := as(t, jane, "get", "pods"); r.Code == 0 || !strings.Contains(r.Stderr, "Unauthorized") && !strings.Contains(r.Stderr, "revoked") {
		t.Errorf("the revoked kubeconfig: %v", r)
	}
	if r := as(t, kept, "get", "pods"); r.Code != 0 {
		t.Errorf("another: %v", r)
	}

	before := webPods(t, "issuer")
	machine.Sublet(t, "kubeconfig", "rotate-ca", "issuer")
	fresh := kubeconfigFile(t, "issuer")
	for name, file := range map[string]string{"old": kept, "new": fresh} {
		machine.Eventually(t, "the "+name+" kubeconfig works", func() error {
			if r := as(t, file, "get", "pods"); r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
	goOn(t, open)
	if r := machine.Try(t, "kubeconfig", "rotate-ca", "issuer", "--finish"); r.Code != 5 || !strings.Contains(r.Stderr, "kubeconfigs of the old CA") {
		t.Errorf("finish while somebody uses the old CA: %v", r)
	}
	machine.Sublet(t, "kubeconfig", "rotate-ca", "issuer", "--finish", "--force")
	for what, done := range open {
		t.Logf("%s by the old CA ended: %s", what, <-done)
	}
	machine.Eventually(t, "the new kubeconfig works", func() error {
		if r := as(t, fresh, "get", "pods"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if r := as(t, kept, "get", "pods"); r.Code == 0 {
		t.Errorf("a kubeconfig of the old CA works: %v", r)
	}
	if after := webPods(t, "issuer"); after != before {
		t.Errorf("pods were touched:\n%s\n%s", before, after)
	}
	// Pods reach their API by the new CA: the program in them asks for its version.
	if r := app(t, "issuer", "uname"); r.Code != 0 {
		t.Errorf("exec after the rotation: %v", r)
	}
}

// talker is a pod that says something all the time.
const talker = `
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: ` + hostileImage + `, imagePullPolicy: Never, args: [talk]}]
`

// streams opens all that lasts with a kubeconfig.
func streams(t *testing.T, kubeconfig string) map[string]chan string {
	t.Helper()
	return map[string]chan string{
		"a watch":        background(t, kubeconfig, "get", "pods", "--watch", "-o", "name"),
		"a port-forward": background(t, kubeconfig, "port-forward", "deploy/web", ":8080"),
		"logs":           background(t, kubeconfig, "logs", "--follow", "deploy/web"),
		"an exec":        background(t, kubeconfig, "exec", "talker", "--", "/hostile", "talk"),
		"an attach":      background(t, kubeconfig, "attach", "talker"),
	}
}

// goOn wants none of them to have ended.
func goOn(t *testing.T, open map[string]chan string) {
	t.Helper()
	for what, done := range open {
		select {
		case how := <-done:
			t.Errorf("%s of another kubeconfig ended: %s", what, how)
			done <- how
		default:
		}
	}
}

// kubeconfigFile writes a kubeconfig of a tenant.
func kubeconfigFile(t *testing.T, tenant string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(machine.Sublet(t, append([]string{"kubeconfig", tenant}, flags...)...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// as runs kubectl with a kubeconfig.
func as(t *testing.T, kubeconfig string, args ...string) machine.Result {
	t.Helper()
	return machine.Try(t, append([]string{"connect", "issuer", "--", "kubectl", "--kubeconfig", kubeconfig}, args...)...)
}

// background runs kubectl with a kubeconfig, and returns once it wrote something.
// The channel gets how it ended.
func background(t *testing.T, kubeconfig string, args ...string) chan string {
	t.Helper()
	cmd := machine.Command(append([]string{"connect", "issuer", "--", "kubectl", "--kubeconfig", kubeconfig}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatalf("kubectl %q wrote nothing: %v", args, err)
	}
	done := make(chan string, 1)
	go func() {
		_, _ = io.Copy(io.Discard, out) // until it ends
		done <- fmt.Sprint(cmd.Wait())
	}()
	return done
}
