package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/test/machine"
)

const hostileImage = "sublet.dev/hostile:1"

// hostilePod is one that runs the hostile program; more are further fields of its
// container.
func hostilePod(name, args, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - name: app
    image: %s
    imagePullPolicy: Never
    args: [%s]
    terminationMessagePath: /tmp/message/text
    %s
    volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
---`, name, hostileImage, args, more)
}

// subPathPod mounts what a container before it made of a volume.
func subPathPod(name, subPath, file string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  initContainers:
  - {name: before, image: %[2]s, imagePullPolicy: Never, args: [links, /v], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: app, image: %[2]s, imagePullPolicy: Never, args: [has, %[4]s], volumeMounts: [{name: v, mountPath: /v, subPath: %[3]s}]}
  volumes: [{name: v, emptyDir: {}}]
---`, name, hostileImage, subPath, file)
}

// logPod has folders of its own where nodes keep the logs of pods.
func logPod(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - {name: app, image: %s, imagePullPolicy: Never, args: [log-by-link, /etc/passwd], volumeMounts: [{name: v, mountPath: /var/log}, {name: v, mountPath: /tmp}]}
  volumes: [{name: v, emptyDir: {}}]
---`, name, hostileImage)
}

func execProbe(args string, timeout int) string {
	return fmt.Sprintf("readinessProbe: {exec: {command: [/hostile, %s]}, periodSeconds: 1, timeoutSeconds: %d}", args, timeout)
}

var hostilePods = strings.Join([]string{
	hostilePod("says", "say, own words", ""),
	hostilePod("says-much", "say-much", ""),
	hostilePod("links", "say-by-link, /etc/passwd", ""),
	hostilePod("fifo", "say-by-fifo", ""),
	hostilePod("honest", "wait", execProbe("has, /hostile", 60)),
	hostilePod("hangs", "hang", execProbe("hang", 1)),
	hostilePod("floods", "wait", execProbe("flood", 1)+"\n    lifecycle: {preStop: {exec: {command: [/hostile, flood]}}}"),
	subPathPod("inside", "inside", "/v/own"),
	subPathPod("outside", "outside", "/v/proc"),
	logPod("logs"),
}, "\n")

// TestHostilePods: what programs in pods do to what the node does for them costs the pods
// themselves, in each sandbox. Beside each there is one that is honest, which gets what
// the other wants.
func TestHostilePods(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	machine.Image(t, "test/images/hostile", hostileImage)
	file := filepath.Join(t.TempDir(), "pods.yaml")
	if err := os.WriteFile(file, []byte(hostilePods), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range []string{"gvisor", "runc-userns"} {
		t.Run(sandbox, func(t *testing.T) {
			t.Parallel()
			tenant := "hostile-" + sandbox
			bare(t, tenant, "--sandbox", sandbox)
			machine.Kubectl(t, tenant, "apply", "-f", file)
			for pod, ends := range map[string]func(*corev1.Pod) string{
				"says": ended("own words"), "says-much": ended("much much"), "links": ended(""), "fifo": ended(""),
				"inside": ended(""), "outside": waits("subPath"), "logs": ended(""),
				"honest": isReady, "hangs": notReady, "floods": notReady,
			} {
				machine.Eventually(t, pod, func() error {
					var p corev1.Pod
					decode(t, machine.Kubectl(t, tenant, "get", "pod", pod, "-o", "json"), &p)
					if why := ends(&p); why != "" {
						return fmt.Errorf("%s: %s", why, machine.Kubectl(t, tenant, "describe", "pod", pod))
					}
					return nil
				})
			}
			// The node has a file of that name, with this in it.
			if log := machine.Kubectl(t, tenant, "logs", "logs"); !strings.Contains(log, "own words\n") || strings.Contains(log, "root:") {
				t.Errorf("the log is %q", log)
			}
			var events corev1.EventList
			decode(t, machine.Kubectl(t, tenant, "get", "events", "-o", "json"), &events)
			unhealthy := 0
			for _, e := range events.Items {
				if e.Reason == "Unhealthy" {
					unhealthy++
				}
				if len(e.Message) > 16<<10 {
					t.Errorf("an event of %d bytes", len(e.Message))
				}
			}
			if unhealthy == 0 {
				t.Errorf("nothing was said of the probes: %+v", events.Items)
			}
			machine.Kubectl(t, tenant, "delete", "pod", "hangs", "floods", "honest", "--timeout=5m")
		})
	}
}

// ended says what is wrong with a pod that must have ended well, with a termination message
// that begins so and is as long as such a message may be.
func ended(message string) func(*corev1.Pod) string {
	return func(p *corev1.Pod) string {
		if p.Status.Phase != corev1.PodSucceeded {
			return "it has not ended well"
		}
		got := strings.TrimSpace(p.Status.ContainerStatuses[0].State.Terminated.Message) // of a long one the end
		if !strings.HasPrefix(got, message) || message == "" && got != "" || len(got) > 4096 {
			return fmt.Sprintf("its message has %d bytes: %.100q", len(got), got)
		}
		return ""
	}
}

// waits says what is wrong with a pod whose container must never begin, for that reason.
func waits(reason string) func(*corev1.Pod) string {
	return func(p *corev1.Pod) string {
		if len(p.Status.ContainerStatuses) == 1 {
			if w := p.Status.ContainerStatuses[0].State.Waiting; w != nil && strings.Contains(w.Message, reason) {
				return ""
			}
		}
		return "it does not wait for " + reason
	}
}

func runs(p *corev1.Pod) (running, ready bool) {
	return p.Status.Phase == corev1.PodRunning, slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func isReady(p *corev1.Pod) string {
	if _, ok := runs(p); !ok {
		return "it is not ready"
	}
	return ""
}

func notReady(p *corev1.Pod) string {
	if running, ok := runs(p); !running || ok {
		return "it does not run, or is ready"
	}
	return ""
}
