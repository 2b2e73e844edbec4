package e2e_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/test/images/ociimage"
	"sublet.dev/test/machine"
)

// extensionImage builds and imports the image of test/images/extension.
func extensionImage(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "extension")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, "./test/images/extension")
	build.Dir, build.Env = machine.Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "extension.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = ociimage.Write(f, ociimage.Image{
		Name: "sublet.dev/extension:1", User: "65534:65534", Entrypoint: []string{"/extension"},
		Files: []ociimage.File{{Path: "/extension", Mode: 0o755, Data: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	machine.Sublet(t, "image", "import", f.Name())
}

// extensionPod is a Deployment of the extension, its certificate, and its Service.
const extensionPod = `
apiVersion: v1
kind: Secret
metadata: {name: extension}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: extension}
spec:
  selector: {matchLabels: {app: extension}}
  template:
    metadata: {labels: {app: extension}}
    spec:
      containers:
      - name: c
        image: sublet.dev/extension:1
        args: [/tls/tls.crt, /tls/tls.key]
        ports: [{containerPort: 8443}]
        readinessProbe: {httpGet: {port: 8443, scheme: HTTPS, path: /ready}, periodSeconds: 1}
        volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: extension}}]
---
apiVersion: v1
kind: Service
metadata: {name: extension}
spec:
  selector: {app: extension}
  ports: [{name: https, port: 443, targetPort: 8443}]
`

// extensionUses makes a webhook for ConfigMaps and an aggregated API of a Service.
const extensionUses = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: %[1]s.example.com
  clientConfig: {service: {namespace: default, name: %[1]s, path: /validate}, caBundle: %[2]s}
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
  objectSelector: {matchLabels: {hook: %[1]s}}
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.%[3]s}
spec:
  group: %[3]s
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 10
  caBundle: %[2]s
  service: {namespace: default, name: %[1]s}
`

// forged is a Service whose endpoint is what the tenant writes.
const forged = `
apiVersion: v1
kind: Service
metadata: {name: forged}
spec: {ports: [{name: https, port: 443, targetPort: %[2]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: forged-1, labels: {kubernetes.io/service-name: forged}}
addressType: IPv4
endpoints: [{addresses: [%[1]q], conditions: {ready: true}}]
ports: [{name: https, port: %[2]s}]
`

// TestExtensions has a tenant's API server call a webhook and an API server in the
// tenant's pods, and shows that it calls nothing else.
func TestExtensions(t *testing.T) {
	t.Parallel()
	bare(t, "extended")
	bare(t, "bystander")
	extensionImage(t)
	ca := deployExtension(t, "extended")
	deployExtension(t, "bystander")
	apply(t, "extended", fmt.Sprintf(extensionUses, "extension", ca, "ext.example.com"))

	t.Run("webhook", func(t *testing.T) {
		machine.Eventually(t, "the webhook refuses", func() error {
			return says(configMap(t, "extended", "bad", "extension"), "the extension says no")
		})
		if r := configMap(t, "extended", "good", "extension"); r.Code != 0 {
			t.Errorf("what the webhook allows: %v", r)
		}
	})
	t.Run("aggregated API", func(t *testing.T) {
		machine.Kubectl(t, "extended", "wait", "--for=condition=Available", "apiservice/v1.ext.example.com", "--timeout=5m")
		machine.Eventually(t, "it answers", func() error {
			return says(machine.TryKubectl(t, "extended", "get", "askers.ext.example.com", "me", "-o", "yaml"), "kind: Asker", "user: ")
		})
	})
	t.Run("proxies", func(t *testing.T) {
		pod := pods(t, "extended", "app=extension")[0].Name
		for _, path := range []string{"pods/https:" + pod + ":8443", "services/https:extension:https"} {
			if err := says(machine.TryKubectl(t, "extended", "get", "--raw", "/api/v1/namespaces/default/"+path+"/proxy/x"), "extension /x"); err != nil {
				t.Error(path, err)
			}
		}
		node := strings.TrimSpace(machine.Kubectl(t, "extended", "get", "nodes", "-o", "name"))
		r := machine.TryKubectl(t, "extended", "get", "--raw", "/api/v1/nodes/"+strings.TrimPrefix(node, "node/")+"/proxy/pods")
		if r.Code == 0 || !strings.Contains(r.Stderr, "a view of one that is shared") && !strings.Contains(r.Stderr, "refused") {
			t.Errorf("a node's proxy: %v", r)
		}
	})
	t.Run("backends that are not the tenant's", func(t *testing.T) {
		other := strings.TrimSpace(machine.Kubectl(t, "bystander", "get", "pods", "-l", "app=extension", "-o", "jsonpath={.items[0].status.podIP}"))
		node := strings.TrimSpace(machine.Host(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`))
		apply(t, "extended", fmt.Sprintf(extensionUses, "forged", ca, "forged.example.com"))
		for what, at := range map[string][2]string{
			"another tenant's pod": {other, "8443"}, "the kubelet": {node, "10250"}, "the host's API": {node, "6443"}, "a private network": {"10.99.99.99", "443"},
		} {
			apply(t, "extended", fmt.Sprintf(forged, at[0], at[1]))
			machine.Eventually(t, what+" is refused to the webhook", func() error {
				return says(configMap(t, "extended", "good-2", "forged"), "connecting to "+at[0], "refused: that")
			})
			machine.Eventually(t, what+" is refused to the aggregator", func() error {
				return says(machine.TryKubectl(t, "extended", "get", "apiservice", "v1.forged.example.com", "-o", "yaml"), "connecting to "+at[0], "refused: that")
			})
		}
	})
}

// deployExtension runs the extension and returns its authority as a caBundle.
func deployExtension(t *testing.T, tenant string) string {
	t.Helper()
	authority, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "pki"), "extension")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.IssueServing([]string{"extension.default.svc", "forged.default.svc"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	apply(t, tenant, fmt.Sprintf(extensionPod, encode("CERTIFICATE", cert.Certificate[0]), encode("PRIVATE KEY", key)))
	machine.Kubectl(t, tenant, "rollout", "status", "deployment/extension", "--timeout=5m")
	return base64.StdEncoding.EncodeToString(authority.CAPEM())
}

// configMap creates a ConfigMap that a webhook selects, and removes it again.
func configMap(t *testing.T, tenant, name, hook string) machine.Result {
	t.Helper()
	file := filepath.Join(t.TempDir(), "configmap.yaml")
	manifest := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, labels: {hook: %s}}\n", name, hook)
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	r := machine.TryKubectl(t, tenant, "create", "-f", file)
	if r.Code == 0 {
		machine.Kubectl(t, tenant, "delete", "configmap", name)
	}
	return r
}

// says wants all of texts in what a command said.
func says(r machine.Result, texts ...string) error {
	for _, text := range texts {
		if !strings.Contains(r.Stdout+r.Stderr, text) {
			return fmt.Errorf("%v does not say %q", r, text)
		}
	}
	return nil
}
