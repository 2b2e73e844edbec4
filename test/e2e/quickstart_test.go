package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

var quickstart = filepath.Join(machine.Root, "examples/quickstart/quickstart.yaml")

// tenants makes tenants with the quickstart in each and deletes them at the end.
func tenants(t *testing.T, names ...string) {
	t.Helper()
	machine.Running(t)
	for _, name := range names {
		machine.Sublet(t, "create", name, "--wait")
		t.Cleanup(func() { machine.Sublet(t, "delete", name, "--wait", "--ignore-not-found") })
		machine.Explain(t, name)
		machine.Kubectl(t, name, "apply", "-f", quickstart)
	}
	for _, name := range names {
		machine.Kubectl(t, name, "rollout", "status", "deployment/web", "--timeout=5m")
		machine.Kubectl(t, name, "wait", "--for=condition=Complete", "job/first-visits", "--timeout=5m")
	}
}

// app runs the quickstart's program in a tenant's web application.
func app(t *testing.T, tenant string, args ...string) machine.Result {
	t.Helper()
	return machine.TryKubectl(t, tenant, append([]string{"exec", "deploy/web", "--", "/app"}, args...)...)
}

// reaches waits until a tenant's application can open a connection; refuses says that it
// cannot.
func reaches(t *testing.T, tenant, address string) {
	t.Helper()
	machine.Eventually(t, tenant+" reaches "+address, func() error {
		if r := app(t, tenant, "dial", address); r.Code != 0 {
			return fmt.Errorf("it does not: %v", r)
		}
		return nil
	})
}

func refuses(t *testing.T, tenant, address string) {
	t.Helper()
	r := app(t, tenant, "dial", address)
	if r.Code == 0 {
		t.Errorf("%s reaches %s: %v", tenant, address, r)
	} else if !strings.Contains(r.Stderr, "app: dial") {
		t.Errorf("%s tried %s, but it is not the connection that failed: %v", tenant, address, r)
	}
}

// pods returns a tenant's pods with a label.
func pods(t *testing.T, tenant, selector string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	decode(t, machine.Kubectl(t, tenant, "get", "pods", "-l", selector, "-o", "json"), &list)
	if len(list.Items) == 0 {
		t.Fatalf("%s has no pod with %s", tenant, selector)
	}
	return list.Items
}

func decode(t *testing.T, s string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), into); err != nil {
		t.Fatalf("%v in %q", err, s)
	}
}

func TestTwoTenants(t *testing.T) {
	t.Parallel()
	tenants(t, "blue", "green")

	t.Run("the same application answers in both", func(t *testing.T) {
		for _, name := range []string{"blue", "green"} {
			r := app(t, name, "visit", "http://web.default.svc.cluster.local/")
			var visits int // three are its Job's, more if that had to try again
			if _, err := fmt.Sscanf(r.Stdout, "Hello from a cluster of my own: visit %d", &visits); err != nil || r.Code != 0 || visits < 4 {
				t.Errorf("%s: %v", name, r)
			}
		}
	})

	t.Run("neither sees the other", func(t *testing.T) {
		theirs := map[string]bool{}
		for _, p := range pods(t, "green", "app=web") {
			theirs[string(p.UID)], theirs[p.Status.PodIP] = true, true
		}
		for _, p := range pods(t, "blue", "app=web") {
			if theirs[string(p.UID)] || theirs[p.Status.PodIP] {
				t.Errorf("pod %s is in both tenants", p.Name)
			}
		}
		for _, name := range []string{"blue", "green"} {
			if out := machine.Kubectl(t, name, "get", "namespaces", "-o", "name"); strings.Contains(out, "sublet") {
				t.Errorf("%s sees the host's namespaces: %s", name, out)
			}
		}
	})

	t.Run("pods run in gVisor", func(t *testing.T) {
		if r := app(t, "blue", "dmesg"); !strings.Contains(r.Stdout, "Starting gVisor") {
			t.Errorf("dmesg: %v", r)
		}
	})

	t.Run("the fence", func(t *testing.T) {
		green := pods(t, "green", "app=web")[0].Status.PodIP
		service := machine.Kubectl(t, "green", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
		for tenant, check := range map[string]func(*testing.T, string, string){"green": reaches, "blue": refuses} {
			check(t, tenant, green+":8080")
			check(t, tenant, service+":80")
		}
		// The servers are there and would answer: package wire tests that.
		refuses(t, "blue", fmt.Sprintf("%s:%d", wire.Metadata, wire.Port))
		refuses(t, "blue", fmt.Sprintf("%s:%d", wire.World, wire.Port)) // a private network
		reaches(t, "blue", fmt.Sprintf("%s:%d", wire.Internet, wire.Port))
		reaches(t, "blue", "kubernetes.default.svc:443")
		for _, port := range []string{"10250", "6443", "8443", "10256"} { // kubelet, host API, front door, kube-proxy
			refuses(t, "blue", wire.Node+":"+port)
		}
	})

	t.Run("logs, exec, attach, port-forward, cp", func(t *testing.T) { subresources(t, "blue") })

	t.Run("the tenant's cluster looks like one", func(t *testing.T) {
		if out := machine.Kubectl(t, "blue", "get", "nodes"); !strings.Contains(out, "Ready") {
			t.Errorf("nodes: %s", out)
		}
		if out := machine.Kubectl(t, "blue", "auth", "can-i", "*", "*"); strings.TrimSpace(out) != "yes" {
			t.Errorf("the tenant's admin is not cluster-admin: %s", out)
		}
		if out := machine.Kubectl(t, "blue", "get", "events"); !strings.Contains(out, "Started") {
			t.Errorf("the kubelet's events do not arrive: %s", out)
		}
	})
}

// deleteLeavesNothing compares the machine before a tenant with after. Other tenants
// have run pods before, since some things are made once, with the first, and stay; no
// other tenant comes or goes meanwhile.
func deleteLeavesNothing(t *testing.T) {
	before := inventory(t)
	tenants(t, "gone")
	if during := inventory(t); len(added(before, during)) == 0 {
		t.Fatal("a running tenant adds nothing that the test looks at")
	}
	machine.Sublet(t, "delete", "gone", "--wait")
	machine.Eventually(t, "nothing is left of the tenant", func() error {
		if left := added(before, inventory(t)); len(left) > 0 {
			return fmt.Errorf("left:\n%s", strings.Join(left, ""))
		}
		return nil
	})
	if r := machine.Try(t, "describe", "gone"); r.Code != 3 {
		t.Errorf("describe a deleted tenant: %v", r)
	}
}

// added returns the lines that are in after and not, or more often than, in before.
func added(before, after string) []string {
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count[line]++
	}
	var more []string
	for line := range strings.Lines(after) {
		if count[line]--; count[line] < 0 {
			more = append(more, line)
		}
	}
	return more
}

// inventory lists what a tenant could leave: host objects, cgroups, mounts,
// network interfaces and namespaces, nft chains, files.
func inventory(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	objects := "namespaces,pods,services,endpointslices,configmaps,secrets,serviceaccounts,roles,rolebindings," +
		"resourcequotas,limitranges,clusterroles,clusterrolebindings,virtualclusters,ipaddresses,networkpolicies"
	b.WriteString(machine.Host(t, "get", objects, "-A", "-o", "name"))
	for _, script := range []string{
		`find /sys/fs/cgroup -type d -path "*/sublet-$ID/*/pod*" | sort`,
		`awk '{print $2}' /proc/self/mounts | grep -F "$DATA" | sort`,
		`ip -o link show type veth | sed 's/^[0-9]*: //; s/@.*//' | sort`,
		`find "/run/sublet/$ID" -path '*netns/*' -o -path '*runsc/*' -o -path '*runc/*' | sort`,
		`nft list table inet sublet | grep -E '^[[:space:]]*(chain|set|map) ' | sort`,
		// What kube-proxy leads somewhere. It empties a chain that nothing leads to any
		// more at once, and removes it with its next change, whenever that is.
		`nft list map ip kube-proxy service-ips | grep -oE '[0-9.]+ \. [a-z]+ \. [0-9]+ : goto [^ ,}]+' | sort`,
		`find "$DATA"/server/tenants "$DATA"/agent/podnet "$DATA"/run -mindepth 1 | sort`,
	} {
		out, err := shell(script)
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		fmt.Fprintf(&b, "$ %s\n%s", script, out)
	}
	return b.String()
}

func TestForbiddenPods(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	machine.Sublet(t, "create", "strict", "--wait")
	t.Cleanup(func() { machine.Sublet(t, "delete", "strict", "--wait") })
	machine.Explain(t, "strict")
	cases := map[string]struct{ patch, reason string }{
		"hostPath":    {`{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/"}}]}}`, "hostPath"},
		"hostNetwork": {`{"spec":{"hostNetwork":true}}`, "hostNetwork"},
		"hostPID":     {`{"spec":{"hostPID":true}}`, "hostPID"},
		"hostIPC":     {`{"spec":{"hostIPC":true}}`, "hostIPC"},
		"privileged":  {`{"spec":{"containers":[{"name":"c","image":"sublet.dev/quickstart:1","securityContext":{"privileged":true}}]}}`, "privileged"},
		"hostPort":    {`{"spec":{"containers":[{"name":"c","image":"sublet.dev/quickstart:1","ports":[{"containerPort":80,"hostPort":80}]}]}}`, "hostPort"},
		"nodeName":    {`{"spec":{"nodeName":"node"}}`, "nodeName"},
		"probe host":  {`{"spec":{"containers":[{"name":"c","image":"sublet.dev/quickstart:1","livenessProbe":{"httpGet":{"host":"169.254.169.254","port":80}}}]}}`, "host"},
	}
	run := func(t *testing.T, patch string) machine.Result {
		return machine.TryKubectl(t, "strict", "run", "p", "--image=sublet.dev/quickstart:1", "--dry-run=server", "-o", "name", "--overrides="+patch)
	}
	if r := run(t, `{}`); r.Code != 0 {
		t.Fatalf("a harmless pod is refused: %v", r)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := run(t, c.patch)
			if r.Code == 0 || !strings.Contains(strings.ToLower(r.Stderr), "forbidden") || !strings.Contains(r.Stderr, c.reason) {
				t.Errorf("want a refusal that names %s: %v", c.reason, r)
			}
		})
	}
}

func shell(script string) (string, error) {
	cmd := machine.Command()
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-c", script}
	cmd.Env = append(os.Environ(), "DATA="+machine.DataDir(), "ID="+machine.ID())
	out, err := cmd.Output()
	return string(out), err
}
