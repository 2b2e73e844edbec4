package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// fromVolume is a pod that is ready when the program in its image volume runs. It has a
// full name, by its subdomain, and an alias of its own.
const fromVolume = `
apiVersion: v1
kind: Pod
metadata: {name: files}
spec:
  hostname: db-0
  subdomain: db
  setHostnameAsFQDN: %t
  hostAliases: [{ip: 203.0.113.7, hostnames: [elsewhere]}]
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - name: app
    image: sublet.dev/quickstart:1
    command: [/files/app, counter]
    readinessProbe: {httpGet: {path: /healthz, port: 9090}, periodSeconds: 1}
    volumeMounts: [{name: files, mountPath: /files}, {name: secret, mountPath: /etc/secret}]
  volumes:
  - name: files
    image: {reference: "sublet.dev/quickstart:1", pullPolicy: IfNotPresent}
  - name: secret
    secret: {secretName: quickstart}
---
apiVersion: v1
kind: Secret
metadata: {name: quickstart}
stringData: {password: correct horse battery staple}
`

// TestFilesOfPods: the files of an image are there for a pod in each sandbox, and its
// full name in /etc/hosts. One of the pods has it for its hostname, too. Volumes of
// memory are what they should be.
func TestFilesOfPods(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	machine.Image(t, "test/images/hostile", hostileImage)
	for sandbox, fqdn := range map[string]bool{"gvisor": false, "runc-userns": true} {
		t.Run(sandbox, func(t *testing.T) {
			name, pod := "files-"+sandbox, filepath.Join(t.TempDir(), "pod.yaml")
			if err := os.WriteFile(pod, fmt.Appendf(nil, fromVolume, fqdn), 0o600); err != nil {
				t.Fatal(err)
			}
			bare(t, name, "--sandbox", sandbox)
			machine.Kubectl(t, name, "apply", "-f", pod)
			apply(t, name, inMemory)
			machine.Kubectl(t, name, "wait", "pod/files", "--for=condition=Ready", "--timeout=5m")
			fullName(t, name, fqdn)
			memoryVolumes(t, name, sandbox == "gvisor")
		})
	}
}

// fullName looks at the names of the pod in the pod.
func fullName(t *testing.T, name string, fqdn bool) {
	t.Helper()
	const full = "db-0.db.default.svc.cluster.local"
	ip := machine.Kubectl(t, name, "get", "pod", "files", "-o", "jsonpath={.status.podIP}")
	hosts := machine.Kubectl(t, name, "exec", "files", "--", "/files/app", "tar", "cf", "-", "/etc/hosts")
	if !strings.Contains(hosts, "\n"+ip+"\t"+full+"\tdb-0\n") || !strings.Contains(hosts, "\n203.0.113.7\telsewhere\n") || strings.Contains(hosts, "sublet") {
		t.Errorf("/etc/hosts of a pod at %s: %q", ip, hosts)
	}
	want := "db-0"
	if fqdn {
		want = full
	}
	if uname := machine.Kubectl(t, name, "exec", "files", "--", "/files/app", "uname"); !slices.Contains(strings.Fields(uname), want) {
		t.Errorf("the hostname is not %s: %s", want, uname)
	}
}
