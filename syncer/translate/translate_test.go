package translate_test

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

var update = flag.Bool("update", false, "write what the translations give into testdata")

// world is what the lookups of a test answer, from the archive's world.yaml: Nodes,
// Pods and PriorityClasses are the host's, all else is the tenant's.
type world struct {
	id      tenant.ID
	objects []runtime.Object
}

func find[T runtime.Object](w world, match func(T) bool) (T, bool) {
	for _, o := range w.objects {
		if object, ok := o.(T); ok && match(object) {
			return object, true
		}
	}
	var none T
	return none, false
}

func (w world) HostNode(name string) (*corev1.Node, bool) {
	return find(w, func(n *corev1.Node) bool { return w.id.NodeName(n.Name) == name })
}

func (w world) TenantNodes() []*corev1.Node {
	var views []*corev1.Node
	for _, o := range w.objects {
		if n, ok := o.(*corev1.Node); ok && strings.HasPrefix(n.Name, "node-") {
			views = append(views, n)
		}
	}
	return views
}

func (w world) HostPodWithIP(ip string) (*corev1.Pod, bool) {
	return find(w, func(p *corev1.Pod) bool { return p.Status.PodIP == ip })
}

func (w world) ConfigMap(n tenant.Name) (*corev1.ConfigMap, bool) {
	return find(w, func(m *corev1.ConfigMap) bool { return translate.NameOf(m) == n })
}

func (w world) Secret(n tenant.Name) (*corev1.Secret, bool) {
	return find(w, func(s *corev1.Secret) bool { return translate.NameOf(s) == n })
}

func (w world) RuntimeHandler(class string) (string, bool) {
	c, ok := find(w, func(c *nodev1.RuntimeClass) bool { return c.Name == class })
	if !ok {
		return "", false
	}
	return c.Handler, true
}

func (w world) HostPriority(class string) (int32, bool) {
	c, ok := find(w, func(c *schedulingv1.PriorityClass) bool { return c.Name == class })
	if !ok {
		return 0, false
	}
	return c.Value, true
}

func (w world) Services(namespace string) []*corev1.Service {
	var services []*corev1.Service
	for _, o := range w.objects {
		if s, ok := o.(*corev1.Service); ok && s.Namespace == namespace {
			services = append(services, s)
		}
	}
	return services
}

func (w world) Namespaces(selector labels.Selector) []string {
	var names []string
	for _, o := range w.objects {
		if n, ok := o.(*corev1.Namespace); ok && selector.Matches(labels.Set(n.Labels)) {
			names = append(names, n.Name)
		}
	}
	return names
}

// acme is the tenant of the tests.
func acme(sandbox tenant.Sandbox) tenant.Tenant {
	id := tenant.ID("0d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29")
	return tenant.Tenant{
		ID: id, Name: "acme", Sandbox: sandbox,
		HostNamespace: tenant.HostNamespace("acme", id),
		ServiceCIDR:   netip.MustParsePrefix("10.96.4.0/22"), SecondServiceCIDR: netip.MustParsePrefix("fd00:96::400/118"),
	}
}

func translation(sandbox tenant.Sandbox, objects ...runtime.Object) translate.Translation {
	w := world{id: acme(sandbox).ID, objects: objects}
	return translate.Translation{Tenant: acme(sandbox), Lookup: w, Data: w}
}

// TestTranslations holds every archive in testdata against what the translations
// give: tenant.yaml goes down to host.yaml or refused.txt; with host-status.yaml as
// the host object's status (or hostevent.yaml as an event about it) it comes back up
// as up.yaml. plan.yaml is what the plan offers. The comment's first word is the sandbox.
func TestTranslations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			given := map[string][]byte{}
			for _, f := range archive.Files {
				given[f.Name] = f.Data
			}
			sandbox := tenant.Sandbox(strings.Trim(strings.Fields(string(archive.Comment) + " gvisor")[0], "."))
			if sandbox.Validate() != nil {
				sandbox = tenant.GVisor
			}
			got := run(t, translation(sandbox, decode(t, given["world.yaml"])...), given)
			compare(t, file, archive, given, got)
		})
	}
}

// compare holds the outputs against the archive's, or writes them there.
func compare(t *testing.T, file string, archive *txtar.Archive, given, got map[string][]byte) {
	outputs := []string{"host.yaml", "refused.txt", "up.yaml"}
	if *update {
		archive.Files = without(archive.Files, outputs)
		for _, name := range outputs {
			if len(got[name]) > 0 {
				archive.Files = append(archive.Files, txtar.File{Name: name, Data: got[name]})
			}
		}
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, name := range outputs {
		if !bytes.Equal(given[name], got[name]) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got[name], given[name])
		}
	}
}

func without(files []txtar.File, names []string) []txtar.File {
	var kept []txtar.File
	for _, f := range files {
		if !strings.Contains(strings.Join(names, " "), f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}

// run translates tenant.yaml down, and back up.
func run(t *testing.T, tr translate.Translation, given map[string][]byte) map[string][]byte {
	t.Helper()
	got := map[string][]byte{}
	source := given["tenant.yaml"]
	for _, host := range []string{"hostnode.yaml", "hostclass.yaml"} {
		if source == nil {
			source = given[host]
		}
	}
	object := decode(t, source)[0]
	_, isService := object.(*corev1.Service)
	_, isIngress := object.(*networkingv1.Ingress)
	if isRouting := strings.HasPrefix(object.GetObjectKind().GroupVersionKind().Group, "gateway."); !isService && !isIngress && !isRouting && given["plan.yaml"] != nil {
		var terms translate.PodTerms
		if err := yaml.UnmarshalStrict(given["plan.yaml"], &terms); err != nil {
			t.Fatal(err)
		}
		tr.Plan = func() translate.PodTerms { return terms }
	}
	switch o := object.(type) {
	case *corev1.Pod:
		runPod(t, tr, o, given, got)
	case *corev1.Service:
		runService(t, tr, o, given, got)
	case *networkingv1.Ingress:
		runIngress(t, tr, o, given, got)
	case *gatewayv1.Gateway:
		runGateway(t, tr, o, given, got)
	case *gatewayv1.HTTPRoute:
		runRoute(t, tr, o, given, got)
	case *discoveryv1.EndpointSlice:
		got["host.yaml"] = encode(t, tr.EndpointSlice(o))
	case *networkingv1.NetworkPolicy:
		hostPolicy, refused := tr.NetworkPolicy(o)
		got["host.yaml"] = encode(t, hostPolicy)
		if len(refused) > 0 {
			got["refused.txt"] = refusedText(refused)
		}
	case *corev1.ConfigMap:
		got["host.yaml"] = encode(t, tr.ConfigMap(o))
	case *corev1.Secret:
		got["host.yaml"] = encode(t, tr.Secret(o))
	case *corev1.PersistentVolumeClaim:
		runClaim(t, tr, o, given, got)
	case *schedulingv1.PriorityClass:
		got["up.yaml"] = encode(t, tr.PriorityClass(o))
	case *storagev1.StorageClass:
		got["up.yaml"] = encode(t, tr.Class(o, true))
	case *corev1.Node:
		view, _ := tr.NodeStatus(o, tr.Node(o))
		got["up.yaml"] = encode(t, view)
	default:
		t.Fatalf("no translation for %T", o)
	}
	return got
}

// runService translates a Service; with plan.yaml to one with a load balancer.
func runService(t *testing.T, tr translate.Translation, tenantService *corev1.Service, given, got map[string][]byte) {
	hostService := tr.Service(tenantService)
	if plan := given["plan.yaml"]; plan != nil {
		var offer translate.LoadBalancers
		if err := yaml.UnmarshalStrict(plan, &offer); err != nil {
			t.Fatal(err)
		}
		balanced, refused := offer.Balance(hostService, tenantService, nil)
		if len(refused) > 0 {
			got["refused.txt"] = refusedText(refused)
			return
		}
		hostService = balanced
	}
	got["host.yaml"] = encode(t, hostService)
	if status := given["host-status.yaml"]; status != nil {
		hostService.Status = decode(t, status)[0].(*corev1.Service).Status
		up, _ := translate.ServiceStatus(hostService, tenantService)
		got["up.yaml"] = encode(t, &corev1.Service{Status: up.Status})
	}
}

// runIngress translates an Ingress of a tenant that has the hostnames of granted.txt,
// where others have those of taken.txt.
func runIngress(t *testing.T, tr translate.Translation, tenantIngress *networkingv1.Ingress, given, got map[string][]byte) {
	var plan translate.Ingresses
	if err := yaml.UnmarshalStrict(given["plan.yaml"], &plan); err != nil {
		t.Fatal(err)
	}
	hostIngress, refused := tr.Ingress(tenantIngress, plan, strings.Fields(string(given["granted.txt"])), strings.Fields(string(given["taken.txt"])))
	got["host.yaml"] = encode(t, hostIngress)
	if len(refused) > 0 {
		got["refused.txt"] = refusedText(refused)
	}
	if status := given["host-status.yaml"]; status != nil {
		hostIngress.Status = decode(t, status)[0].(*networkingv1.Ingress).Status
		up, _ := translate.IngressStatus(hostIngress, tenantIngress)
		got["up.yaml"] = encode(t, &networkingv1.Ingress{Status: up.Status})
	}
}

func refusedText(refused []policy.Refusal) []byte {
	return []byte(strings.ReplaceAll(policy.Err(refused).Error(), "; ", "\n") + "\n")
}

func runClaim(t *testing.T, tr translate.Translation, tenantClaim *corev1.PersistentVolumeClaim, given, got map[string][]byte) {
	offer := offered
	if err := yaml.UnmarshalStrict(given["offer.yaml"], &offer); err != nil {
		t.Fatal(err)
	}
	hostClaim, refused := tr.Claim(tenantClaim, offer)
	if len(refused) > 0 {
		got["refused.txt"] = refusedText(refused)
		return
	}
	got["host.yaml"] = encode(t, hostClaim)
	seen := decode(t, given["host-status.yaml"])[0].(*corev1.PersistentVolumeClaim)
	hostClaim.Status, hostClaim.Spec.VolumeName = seen.Status, seen.Spec.VolumeName
	bound, _ := translate.BindClaim(hostClaim, tenantClaim)
	up, _ := translate.ClaimStatus(hostClaim, bound)
	view := tr.Volume(hostClaim)
	got["up.yaml"] = slices.Concat(encode(t, &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeName: up.Spec.VolumeName}, Status: up.Status}), []byte("---\n"), encode(t, view))
}

func runPod(t *testing.T, tr translate.Translation, tenantPod *corev1.Pod, given, got map[string][]byte) {
	hostPod, refused := tr.Pod(tenantPod)
	if len(refused) > 0 {
		got["refused.txt"] = refusedText(refused)
		return
	}
	got["host.yaml"] = encode(t, hostPod)
	hostPod.UID = "9c1b0a8e-0000-4000-8000-000000000001"
	if status := given["host-status.yaml"]; status != nil {
		seen := decode(t, status)[0].(*corev1.Pod)
		hostPod.Status, hostPod.Spec.NodeName = seen.Status, seen.Spec.NodeName
		up, _ := tr.PodStatus(tenantPod, hostPod)
		got["up.yaml"] = encode(t, &corev1.Pod{TypeMeta: up.TypeMeta, Status: up.Status})
	}
	if event := given["host-event.yaml"]; event != nil {
		hostPod.Spec.NodeName = "worker-7.example.org"
		e := decode(t, event)[0].(*corev1.Event)
		e.InvolvedObject.UID = hostPod.UID
		e.Message = strings.ReplaceAll(e.Message, "HOSTPOD", hostPod.Name)
		got["up.yaml"] = encode(t, tr.Event(e, tenantPod, hostPod))
	}
}

// codecs know the kinds of Kubernetes and of the Gateway API.
var codecs = func() serializer.CodecFactory {
	all := runtime.NewScheme()
	utilruntime.Must(errors.Join(scheme.AddToScheme(all), gatewayv1.Install(all)))
	return serializer.NewCodecFactory(all)
}()

// decode reads the objects of a YAML file.
func decode(t *testing.T, data []byte) []runtime.Object {
	t.Helper()
	var objects []runtime.Object
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		o, _, err := codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		objects = append(objects, o)
	}
	return objects
}

func encode[T any](t *testing.T, object *T) []byte {
	t.Helper()
	if object == nil {
		return []byte("none\n")
	}
	data, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var kept [][]byte
	for _, line := range bytes.SplitAfter(data, []byte("\n")) {
		if s := strings.TrimSpace(string(line)); s != "status: {}" && s != "loadBalancer: {}" && s != "creationTimestamp: null" && s != "resources: {}" {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, nil)
}
