package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"sublet.dev/test/machine"
)

// fromVolume is a pod that is ready when the program in its image volume runs.
const fromVolume = `
apiVersion: v1
kind: Pod
metadata: {name: files}
spec:
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

// TestImageVolumes: the files of an image are there for a pod in each sandbox.
func TestImageVolumes(t *testing.T) {
	t.Parallel()
	pod := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(pod, []byte(fromVolume), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range []string{"gvisor", "runc-userns"} {
		t.Run(sandbox, func(t *testing.T) {
			name := "files-" + sandbox
			bare(t, name, "--sandbox", sandbox)
			machine.Kubectl(t, name, "apply", "-f", pod)
			machine.Kubectl(t, name, "wait", "pod/files", "--for=condition=Ready", "--timeout=5m")
		})
	}
}
