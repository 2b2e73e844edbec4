package translate

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/tenant"
)

var testTenant = tenant.Tenant{
	ID: "t1", Name: "acme", HostNamespace: tenant.HostNamespace("acme", "t1"), Sandbox: tenant.GVisor,
	ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22"),
}

// nothing is an empty world.
type nothing struct{}

func (nothing) HostNode(string) (*corev1.Node, bool)            { return nil, false }
func (nothing) HostPodWithIP(string) (*corev1.Pod, bool)        { return nil, false }
func (nothing) Services(string) []*corev1.Service               { return nil }
func (nothing) Namespaces(labels.Selector) []string             { return nil }
func (nothing) ConfigMap(tenant.Name) (*corev1.ConfigMap, bool) { return nil, false }
func (nothing) Secret(tenant.Name) (*corev1.Secret, bool)       { return nil, false }

// FuzzPod gives pods with hostile names, labels and values: no key of the tenant's
// reaches the host, the name is valid and the pod's own.
func FuzzPod(f *testing.F) {
	f.Add("default", "web", "app", "web", "$(SECRET)", "metadata.labels['app']")
	f.Add("a-b", "c", "pcns.x/y", "v", "169.254.169.254", "spec.nodeName")
	f.Add("a", strings.Repeat("n", 253), "io.katacontainers.config", "x", "", "metadata.annotations['k']")
	f.Add("a", "web:tokens", "sublet.dev/tenant", "other", "x", "metadata.annotations")
	f.Fuzz(func(t *testing.T, namespace, name, key, value, text, path string) {
		pod := plainPod()
		pod.Namespace, pod.Name = namespace, name
		pod.Labels, pod.Annotations = map[string]string{key: value}, map[string]string{key: value}
		pod.Spec.Hostname = text
		pod.Spec.NodeSelector = map[string]string{key: value}
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}}
		hostPod, refused := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}.Pod(pod)
		if len(refused) > 0 {
			return
		}
		if msgs := validation.IsDNS1123Label(hostPod.Name); len(msgs) > 0 {
			t.Fatalf("host name %q: %v", hostPod.Name, msgs)
		}
		owner, err := tenant.ReadOwner(hostPod.Name, hostPod.Labels, hostPod.Annotations)
		if err != nil || owner.Name != NameOf(pod) || owner.UID != "u1" {
			t.Fatalf("owner %+v, %v", owner, err)
		}
		for _, m := range []map[string]string{hostPod.Labels, hostPod.Annotations} {
			for k := range m {
				if !ours(k) {
					t.Fatalf("key %q on the host", k)
				}
			}
		}
		if k := labels.Set(hostPod.Labels); k[tenant.LabelTenant] != "t1" {
			t.Fatalf("labels %v", k)
		}
	})
}

// FuzzReveal looks for the host's names in what a tenant reads.
func FuzzReveal(f *testing.F) {
	f.Add("worker-1", "pod HOST_NS/HOST_POD on worker-1.")
	f.Add("a", "a banana a")
	f.Fuzz(func(t *testing.T, node, text string) {
		tr := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}
		pod := plainPod()
		hostPod := plainPod()
		hostPod.Name, hostPod.Namespace, hostPod.Spec.NodeName = tr.hostName("default", "web"), testTenant.HostNamespace, node
		text = strings.ReplaceAll(strings.ReplaceAll(text, "HOST_POD", hostPod.Name), "HOST_NS", hostPod.Namespace)
		got := tr.Reveal(pod, hostPod).Text(text)
		if strings.Contains(got, hostPod.Name) || strings.Contains(got, testTenant.HostNamespace) {
			t.Fatalf("%q shows the host's names", got)
		}
	})
}
