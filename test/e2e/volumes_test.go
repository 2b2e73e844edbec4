package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/test/machine"
)

// diskPlan lets a tenant have 128 MiB in all.
const diskPlan = `
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: disks}
spec:
  storageClasses: [local]
  hostResources: {requests.storage: 128Mi}
`

// podSpec is a pod that holds what is mounted at /data, as every plan runs it.
const podSpec = `
    terminationGracePeriodSeconds: 1
    securityContext: {runAsNonRoot: true, runAsUser: 65534, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}
    containers:
    - name: app
      image: sublet.dev/quickstart:1
      args: [counter]
      readinessProbe: {httpGet: {path: /healthz, port: 9090}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /data}, {name: secret, mountPath: /etc/secret}]
`

const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:` + "%s" + `
      volumes: [{name: secret, secret: {secretName: quickstart}}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 48Mi}}}
`

// holder is a pod with a volume that is written for it.
const holder = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:%s
    volumes: [{name: secret, secret: {secretName: quickstart}}, {name: data, %s}]
`

const claim = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: %s
  annotations: {volume.kubernetes.io/selected-node: elsewhere, pv.kubernetes.io/bind-completed: "yes"}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}, %s}
`

// inTemplate moves a pod's spec to where it stands in a StatefulSet.
func inTemplate(spec string) string { return strings.ReplaceAll(spec, "\n    ", "\n      ") }

func pod(name, volume string) string { return fmt.Sprintf(holder, name, podSpec, volume) }

func ready(t *testing.T, tenant, pod string) {
	t.Helper()
	machine.Kubectl(t, tenant, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=5m")
}

// put copies bytes into a pod's /data, as far as there is room.
func put(t *testing.T, tenant, pod, name string, content []byte) machine.Result {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return machine.TryKubectl(t, tenant, "cp", file, pod+":/data/"+name)
}

// get copies a file out of a pod's /data; nil when there is none.
func get(t *testing.T, tenant, pod, name string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "got")
	machine.TryKubectl(t, tenant, "cp", pod+":/data/"+name, file)
	content, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return content
}

func must(t *testing.T, r machine.Result) {
	t.Helper()
	if r.Code != 0 {
		t.Fatal(r)
	}
}

// event waits until an object of the tenant's has an event that says something.
func event(t *testing.T, tenant, object, says string) {
	t.Helper()
	machine.Eventually(t, object+" is told "+says, func() error {
		var events corev1.EventList
		decode(t, machine.Kubectl(t, tenant, "get", "events", "--field-selector", "involvedObject.name="+object, "-o", "json"), &events)
		var said []string
		for _, e := range events.Items {
			said = append(said, e.Message)
		}
		if !strings.Contains(strings.Join(said, "\n"), says) {
			return fmt.Errorf("it is told %q", said)
		}
		return nil
	})
}

// images lists the volumes on the machine's disk.
func images(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(machine.DataDir(), "agent/volumes/images/*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// loops lists the loop devices of the machine's volumes.
func loops(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, f := range files {
		if raw, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(raw), machine.DataDir()+"/") {
			of = append(of, f)
		}
	}
	return of
}

// TestVolumes gives tenants of both sandboxes a database each.
func TestVolumes(t *testing.T) {
	machine.Running(t)
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if err := os.WriteFile(path, []byte(diskPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Host(t, "apply", "-f", path)
	t.Cleanup(func() { machine.Host(t, "delete", "plan", "disks", "--ignore-not-found") })
	bare(t, "vault", "--plan", "disks")
	bare(t, "safe", "--sandbox", "runc-userns")
	secret := bytes.Repeat([]byte("the vault's secret;"), 4096)

	for _, name := range []string{"vault", "safe"} {
		machine.Kubectl(t, name, "create", "secret", "generic", "quickstart", "--from-literal=password=x")
		apply(t, name, fmt.Sprintf(database, inTemplate(podSpec)))
	}
	for _, name := range []string{"vault", "safe"} {
		machine.Kubectl(t, name, "rollout", "status", "statefulset/db", "--timeout=5m")
		must(t, put(t, name, "db-0", "file", append([]byte(name), secret...)))
		machine.Kubectl(t, name, "delete", "pod", "db-0")
		machine.Kubectl(t, name, "rollout", "status", "statefulset/db", "--timeout=5m")
		ready(t, name, "db-0")
		if got := get(t, name, "db-0", "file"); !bytes.Equal(got, append([]byte(name), secret...)) {
			t.Errorf("%s: the pod came back with %d bytes of %d", name, len(got), len(secret)+len(name))
		}
	}
	t.Run("what the tenant sees of it", tenantsView)
	t.Run("what is not offered", notOffered)
	t.Run("a full volume", func(t *testing.T) { fullVolume(t, secret) })
	t.Run("a generic ephemeral volume", ephemeralVolume)
	t.Run("growing", growing)
	t.Run("a killed agent", func(t *testing.T) { killedAgent(t, secret) })
	t.Run("the end", volumesEnd)
}

func tenantsView(t *testing.T) {
	var volumes corev1.PersistentVolumeList
	raw := machine.Kubectl(t, "vault", "get", "pv", "-o", "json")
	decode(t, raw, &volumes)
	if len(volumes.Items) != 1 || volumes.Items[0].Status.Phase != corev1.VolumeBound || volumes.Items[0].Spec.ClaimRef.Name != "data-db-0" {
		t.Errorf("volumes: %s", raw)
	}
	raw += machine.Kubectl(t, "vault", "get", "pvc,sc,pod", "-o", "json")
	for _, hidden := range []string{machine.DataDir(), "sublet-vault", "sublet.dev/local"} {
		if strings.Contains(raw, hidden) {
			t.Errorf("the tenant sees %q", hidden)
		}
	}
	if !strings.Contains(machine.Host(t, "get", "pv", "-o", "json"), machine.DataDir()) {
		t.Error("the provider does not see where volumes lie: the test sees nothing")
	}
}

func notOffered(t *testing.T) {
	var others corev1.PersistentVolumeList
	decode(t, machine.Host(t, "get", "pv", "-o", "json"), &others)
	for i, v := range others.Items {
		if strings.Contains(v.Spec.ClaimRef.Namespace, "safe") {
			apply(t, "vault", fmt.Sprintf(claim, fmt.Sprintf("steal-%d", i), "volumeName: "+v.Name))
			event(t, "vault", fmt.Sprintf("steal-%d", i), "[claim-volume]")
		}
	}
	apply(t, "vault", fmt.Sprintf(claim, "gold", "storageClassName: gold"))
	event(t, "vault", "gold", "[storage-class]")
	apply(t, "vault", fmt.Sprintf(claim, "clone", "dataSource: {kind: PersistentVolumeClaim, name: data-db-0}"))
	event(t, "vault", "clone", "[claim-source]")
	// 48 of 128 MiB are used.
	apply(t, "vault", strings.Replace(fmt.Sprintf(claim, "large", "storageClassName: local"), "32Mi", "100Mi", 1))
	event(t, "vault", "large", "exceeded quota")
	machine.Kubectl(t, "vault", "delete", "pvc", "gold", "clone", "large")
}

// fullVolume fills the vault's volume; that of the other tenant has room.
func fullVolume(t *testing.T, secret []byte) {
	file := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(file, bytes.Repeat(secret, 64<<20/len(secret)), 0o644); err != nil {
		t.Fatal(err)
	}
	full, said := false, ""
	for try := 0; try < 3 && !full; try++ { // a stream may break before the reason has come through
		full, said = copyUntilFull(t, file)
	}
	if !full {
		t.Errorf("there was room for 64 MiB in a volume of 48; kubectl cp said: %s", said)
	}
	must(t, put(t, "safe", "db-0", "more", make([]byte, 8<<20)))
}

// copyUntilFull copies a file into the vault's volume, and says whether it was told that
// there is no space left, and what it was told. A copy that fails waits for long with
// what it did not get rid of: it is ended.
func copyUntilFull(t *testing.T, file string) (full bool, said string) {
	t.Helper()
	cmd := machine.Command("connect", "vault", "--", "kubectl", "cp", file, "db-0:/data/big")
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); !full && lines.Scan(); {
		said += lines.Text() + "\n"
		full = strings.Contains(lines.Text(), "no space left")
	}
	_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	if err := cmd.Wait(); err != nil {
		said += err.Error()
	}
	return full, said
}

// ephemeralVolume is a pod's own: it begins empty, and goes with the pod.
func ephemeralVolume(t *testing.T) {
	apply(t, "safe", pod("scratch", "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}}}"))
	ready(t, "safe", "scratch")
	if got := get(t, "safe", "scratch", "file"); got != nil {
		t.Errorf("a new volume has a file of another: %d bytes", len(got))
	}
	must(t, put(t, "safe", "scratch", "own", []byte("own")))
	machine.Kubectl(t, "safe", "delete", "pod", "scratch")
	machine.Eventually(t, "its claim goes", func() error {
		if r := machine.TryKubectl(t, "safe", "get", "pvc", "scratch-data"); r.Code == 0 {
			return errors.New(r.Stdout)
		}
		return nil
	})
}

// growing: in use where the kernel allows it, else when no pod uses it.
func growing(t *testing.T) {
	machine.Kubectl(t, "safe", "patch", "pvc", "data-db-0", "-p", `{"spec":{"resources":{"requests":{"storage":"96Mi"}}}}`)
	grown := func() error {
		var c corev1.PersistentVolumeClaim
		decode(t, machine.Kubectl(t, "safe", "get", "pvc", "data-db-0", "-o", "json"), &c)
		if size := c.Status.Capacity.Storage(); size.Value() < 96<<20 {
			raw, _ := json.Marshal(c.Status)
			return fmt.Errorf("%s", raw)
		}
		return nil
	}
	machine.Eventually(t, "the claim grows, or waits for its pod", func() error {
		err := grown()
		if err != nil && strings.Contains(err.Error(), string(corev1.PersistentVolumeClaimFileSystemResizePending)) {
			return nil
		}
		return err
	})
	if grown() != nil {
		machine.Kubectl(t, "safe", "scale", "statefulset/db", "--replicas=0")
		machine.Eventually(t, "the claim grows", grown)
		machine.Kubectl(t, "safe", "scale", "statefulset/db", "--replicas=1")
		machine.Kubectl(t, "safe", "rollout", "status", "statefulset/db", "--timeout=5m")
	}
	ready(t, "safe", "db-0")
	must(t, put(t, "safe", "db-0", "larger", make([]byte, 60<<20)))
	if got := get(t, "safe", "db-0", "file"); !bytes.HasPrefix(got, []byte("safe")) {
		t.Errorf("the grown volume lost its content: %d bytes", len(got))
	}
}

// killedAgent: pods go on, and so do their volumes; new ones can be had afterwards.
func killedAgent(t *testing.T, secret []byte) {
	machine.Kill(t, "agent.pid")
	if got := get(t, "vault", "db-0", "file"); !bytes.Equal(got, append([]byte("vault"), secret...)) && got != nil {
		t.Errorf("the volume lost its content: %d bytes", len(got))
	}
	apply(t, "safe", pod("after", "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}}}"))
	ready(t, "safe", "after")
	if got := get(t, "vault", "db-0", "file"); !bytes.Equal(got, append([]byte("vault"), secret...)) {
		t.Errorf("after a restart of the agent the pod reads %d bytes", len(got))
	}
}

// volumesEnd: with its tenant everything of a volume goes, and nothing of others.
func volumesEnd(t *testing.T) {
	before := len(images(t))
	machine.Sublet(t, "delete", "vault", "--wait")
	machine.Eventually(t, "the vault's volume goes", func() error {
		if now := images(t); len(now) != before-1 {
			return fmt.Errorf("on disk: %v", now)
		}
		return nil
	})
	ready(t, "safe", "db-0")
	machine.Sublet(t, "delete", "safe", "--wait")
	machine.Eventually(t, "all volumes go", func() error {
		volumes := machine.Host(t, "get", "pv", "-o", "name")
		if left := append(images(t), loops(t)...); len(left) > 0 || strings.TrimSpace(volumes) != "" && !strings.Contains(volumes, "No resources") {
			return fmt.Errorf("left: %v %s", left, volumes)
		}
		return nil
	})
}
