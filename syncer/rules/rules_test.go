package rules_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/rules"
)

var update = flag.Bool("update", false, "write what the rules give into testdata")

var acme = tenant.Tenant{
	ID: "0d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29", Name: "acme", Sandbox: tenant.GVisor,
	HostNamespace: tenant.HostNamespace("acme", "0d9f2c1e-7b6a-4c58-9a3e-2f1d5c4b3a29"),
	ServiceCIDR:   netip.MustParsePrefix("10.96.4.0/22"),
}

// hide stands for what is taken from the texts of drivers.
func hide(driverText string) string { return strings.ReplaceAll(driverText, "worker-7", "(hidden)") }

// TestRules holds every archive in testdata against what its rule gives: with rule.yaml,
// or the rule that plan.yaml has for it, tenant.yaml goes down to host.yaml or refused.txt,
// and with host-status.yaml as the host object's status back up as up.yaml;
// hostobject.yaml is shown as view.yaml.
func TestRules(t *testing.T) {
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
			compare(t, file, archive, given, cross(t, given))
		})
	}
}

func compare(t *testing.T, file string, archive *txtar.Archive, given, got map[string][]byte) {
	outputs := []string{"host.yaml", "refused.txt", "up.yaml", "view.yaml"}
	if *update {
		var kept []txtar.File
		for _, f := range archive.Files {
			if !strings.Contains(strings.Join(outputs, " "), f.Name) {
				kept = append(kept, f)
			}
		}
		for _, name := range outputs {
			if len(got[name]) > 0 {
				kept = append(kept, txtar.File{Name: name, Data: got[name]})
			}
		}
		archive.Files = kept
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

func ruleOf(t *testing.T, given map[string][]byte) *rules.Rule {
	t.Helper()
	if given["plan.yaml"] != nil {
		return ruleOfPlan(t, given)
	}
	var spec v1alpha1.CustomResourceRule
	if err := yaml.UnmarshalStrict(given["rule.yaml"], &spec); err != nil {
		t.Fatal(err)
	}
	return compile(t, spec)
}

// ruleOfPlan is the rule for the archive's object that its plan has.
func ruleOfPlan(t *testing.T, given map[string][]byte) *rules.Rule {
	t.Helper()
	var plan v1alpha1.PlanSpec
	if err := yaml.UnmarshalStrict(given["plan.yaml"], &plan); err != nil {
		t.Fatal(err)
	}
	kind := decode(t, append(given["tenant.yaml"], given["hostobject.yaml"]...)).GroupVersionKind()
	for _, spec := range baseline.CustomResources(plan) {
		if rule := compile(t, spec); rule.Kind() == kind {
			return rule
		}
	}
	t.Fatalf("the plan has no rule for %s", kind)
	return nil
}

func compile(t testing.TB, spec v1alpha1.CustomResourceRule) *rules.Rule {
	t.Helper()
	rule, err := rules.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func cross(t *testing.T, given map[string][]byte) map[string][]byte {
	t.Helper()
	rule, got := ruleOf(t, given), map[string][]byte{}
	if given["hostobject.yaml"] != nil {
		hostObject := decode(t, given["hostobject.yaml"])
		if !rule.Shows(hostObject) {
			got["view.yaml"] = []byte("none\n")
			return got
		}
		got["view.yaml"] = encode(t, rule.View(hostObject).Object)
		return got
	}
	tenantObject := decode(t, given["tenant.yaml"])
	hostObject, refusals := rule.Down(acme, tenantObject)
	if len(refusals) > 0 {
		got["refused.txt"] = []byte(strings.ReplaceAll(rules.Refused(refusals), "; ", "\n") + "\n")
		return got
	}
	got["host.yaml"] = encode(t, hostObject.Object)
	if status := given["host-status.yaml"]; status != nil {
		text := strings.NewReplacer("HOSTNAMESPACE", acme.HostNamespace, "HOSTNAME", hostObject.GetName()).Replace(string(status))
		seen := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &seen); err != nil {
			t.Fatal(err)
		}
		full := decode(t, []byte(text+"\nkind: x"))
		hostObject.Object["status"] = full.Object["status"]
		hostObject.SetGeneration(full.GetGeneration())
		up, _ := rule.Status(acme, hostObject, tenantObject, hide)
		got["up.yaml"] = encode(t, map[string]any{"status": up.Object["status"]})
	}
	return got
}

func decode(t testing.TB, text []byte) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON(text)
	u := &unstructured.Unstructured{}
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func encode(t *testing.T, object any) []byte {
	t.Helper()
	data, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What a rule cannot be.
func TestCompileRefuses(t *testing.T) {
	good := func() v1alpha1.CustomResourceRule {
		return v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost,
			Fields: []v1alpha1.CustomResourceField{{Path: "spec.a"}}, Status: []string{"status.a"}}
	}
	compile(t, good())
	for name, change := range map[string]func(*v1alpha1.CustomResourceRule){
		"a kind of Kubernetes": func(r *v1alpha1.CustomResourceRule) { r.Group = "rbac.authorization.k8s.io" },
		"a core kind":          func(r *v1alpha1.CustomResourceRule) { r.Group = "" },
		"a kind of ours":       func(r *v1alpha1.CustomResourceRule) { r.Group = "sublet.dev" },
		"no direction":         func(r *v1alpha1.CustomResourceRule) { r.Direction = "" },
		"nothing selected":     func(r *v1alpha1.CustomResourceRule) { r.Direction = v1alpha1.FromHost },
		"metadata":             func(r *v1alpha1.CustomResourceRule) { r.Fields[0].Path = "metadata.labels" },
		"status down":          func(r *v1alpha1.CustomResourceRule) { r.Fields[0].Path = "status.a" },
		"spec up":              func(r *v1alpha1.CustomResourceRule) { r.Status[0] = "spec.a" },
		"all of status":        func(r *v1alpha1.CustomResourceRule) { r.Status[0] = "status" },
		"one below another": func(r *v1alpha1.CustomResourceRule) {
			r.Fields = append(r.Fields, v1alpha1.CustomResourceField{Path: "spec.a.b"})
		},
		"items below": func(r *v1alpha1.CustomResourceRule) {
			r.Fields = append(r.Fields, v1alpha1.CustomResourceField{Path: "spec.a[].b"})
		},
		"one above another": func(r *v1alpha1.CustomResourceRule) {
			r.Fields = append(r.Fields, v1alpha1.CustomResourceField{Path: "spec"})
		},
		"twice":   func(r *v1alpha1.CustomResourceRule) { r.Fields = append(r.Fields, r.Fields[0]) },
		"no path": func(r *v1alpha1.CustomResourceRule) { r.Fields[0].Path = "spec..a" },
		"no JSON": func(r *v1alpha1.CustomResourceRule) { r.Fields[0].Value = &apiextensionsv1.JSON{Raw: []byte("{")} },
	} {
		spec := good()
		change(&spec)
		if _, err := rules.Compile(spec); err == nil {
			t.Errorf("%s: a rule is made of it", name)
		}
	}
}

// What is too large does not cross in either direction.
func TestSize(t *testing.T) {
	rule := compile(t, v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost,
		Fields: []v1alpha1.CustomResourceField{{Path: "spec.a"}}, Status: []string{"status.a", "status.b"}})
	own := decode(t, []byte("kind: Thing\nmetadata: {namespace: ns, name: x, uid: u}\nspec: {a: small}"))
	hostObject, refusals := rule.Down(acme, own)
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	large := decode(t, []byte("kind: Thing\nmetadata: {namespace: ns, name: x, uid: u}\nspec: {a: "+strings.Repeat("x", 64<<10)+"}"))
	if _, refusals := rule.Down(acme, large); len(refusals) != 1 || !strings.Contains(refusals[0].Reason, "65") {
		t.Errorf("%v", refusals)
	}
	hostObject.Object["status"] = map[string]any{"a": strings.Repeat("x", 5000)}
	if up, changed := rule.Status(acme, hostObject, own, hide); !changed || len(up.Object["status"].(map[string]any)["a"].(string)) != 4096 {
		t.Error("a long text is not cut")
	}
	var many []any
	for range 30 {
		many = append(many, strings.Repeat("x", 4000))
	}
	hostObject.Object["status"] = map[string]any{"b": many}
	if _, changed := rule.Status(acme, hostObject, own, hide); changed {
		t.Error("a large status crosses")
	}
}

// What controllers of the host add stays; what was changed of ours does not, and what
// the tenant takes away goes.
func TestMerge(t *testing.T) {
	rule := compile(t, v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost,
		Fields: []v1alpha1.CustomResourceField{{Path: "spec.a"}, {Path: "spec.b.c"}}})
	down := func(spec string) *unstructured.Unstructured {
		o, refusals := rule.Down(acme, decode(t, []byte("kind: Thing\nmetadata: {namespace: ns, name: x, uid: u}\nspec: "+spec)))
		if len(refusals) > 0 {
			t.Fatal(refusals)
		}
		return o
	}
	for name, c := range map[string]struct {
		have, want string
		change     func(map[string]any)
		difference engine.Difference
		spec       string
	}{
		"the same":               {`{a: {x: 1}}`, `{a: {x: 1}}`, func(map[string]any) {}, engine.Same, `{"a":{"x":1}}`},
		"added beside":           {`{a: {x: 1}}`, `{a: {x: 1}}`, func(s map[string]any) { s["z"] = "host" }, engine.Same, `{"a":{"x":1},"z":"host"}`},
		"added below":            {`{a: {x: 1}}`, `{a: {x: 1}}`, func(s map[string]any) { s["a"].(map[string]any)["y"] = "host" }, engine.Same, `{"a":{"x":1,"y":"host"}}`},
		"changed by hand":        {`{a: {x: 1}}`, `{a: {x: 1}}`, func(s map[string]any) { s["a"] = "other" }, engine.Changed, `{"a":{"x":1}}`},
		"changed by the tenant":  {`{a: 1, b: {c: 2}}`, `{a: 1, b: {c: 3}}`, func(s map[string]any) { s["b"].(map[string]any)["d"] = "host" }, engine.Changed, `{"a":1,"b":{"c":3,"d":"host"}}`},
		"taken away":             {`{a: 1, b: {c: 2}}`, `{a: 1}`, func(s map[string]any) { s["z"] = "host" }, engine.Changed, `{"a":1,"b":{},"z":"host"}`},
		"taken away below":       {`{a: {x: 1, y: 2}}`, `{a: {x: 1}}`, func(map[string]any) {}, engine.Changed, `{"a":{"x":1}}`},
		"removed by hand":        {`{a: 1}`, `{a: 1}`, func(s map[string]any) { delete(s, "a") }, engine.Changed, `{"a":1}`},
		"nothing left, none had": {`{}`, `{}`, func(s map[string]any) { s["z"] = "host" }, engine.Same, `{"z":"host"}`},
	} {
		have := down(c.have)
		c.change(have.Object["spec"].(map[string]any))
		before := have.DeepCopy()
		merged, difference := rule.Merge(have, down(c.want))
		spec, _ := json.Marshal(merged.Object["spec"])
		if difference != c.difference || string(spec) != c.spec {
			t.Errorf("%s: %v, %s; want %v, %s", name, difference, spec, c.difference, c.spec)
		}
		if was, is := encode(t, before.Object), encode(t, have.Object); !bytes.Equal(was, is) {
			t.Errorf("%s: what was there was changed", name)
		}
	}
}

// Of a definition of the host the tenant gets one version and no webhook.
func TestDefinition(t *testing.T) {
	version := func(name string, storage bool) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: storage}
	}
	host := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.org", UID: "u", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d", apiextensionsv1.KubeAPIApprovedAnnotation: "https://x"}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.org", Scope: apiextensionsv1.NamespaceScoped,
			Names:      apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
			Versions:   []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", false), version("v2", true)},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter}},
	}
	spec := v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost}
	view, err := compile(t, spec).Definition(host)
	if err != nil || len(view.Spec.Versions) != 1 || !view.Spec.Versions[0].Storage || view.Spec.Conversion.Strategy != apiextensionsv1.NoneConverter ||
		len(view.Labels) != 0 || len(view.Annotations) != 2 || !rules.IsView(view) {
		t.Fatalf("%v, %+v", err, view)
	}
	spec.Version = "v2"
	next, err := compile(t, spec).Definition(host)
	if err != nil {
		t.Fatal(err)
	}
	view.Status.StoredVersions = []string{"v1"}
	merged, difference := rules.MergeDefinition(view, next)
	if difference != engine.Changed || len(merged.Spec.Versions) != 2 || merged.Spec.Versions[1].Name != "v1" || merged.Spec.Versions[1].Served || merged.Spec.Versions[1].Storage {
		t.Errorf("%v, %+v", difference, merged.Spec.Versions)
	}
	if _, difference := rules.MergeDefinition(merged, next); difference != engine.Same {
		t.Error("it is changed again and again")
	}
	for name, change := range map[string]func(*v1alpha1.CustomResourceRule, *apiextensionsv1.CustomResourceDefinition){
		"another kind":    func(r *v1alpha1.CustomResourceRule, _ *apiextensionsv1.CustomResourceDefinition) { r.Kind = "Other" },
		"no such version": func(r *v1alpha1.CustomResourceRule, _ *apiextensionsv1.CustomResourceDefinition) { r.Version = "v3" },
		"version not served": func(_ *v1alpha1.CustomResourceRule, d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Versions[1].Served = false
		},
		"no namespace": func(_ *v1alpha1.CustomResourceRule, d *apiextensionsv1.CustomResourceDefinition) {
			d.Spec.Scope = apiextensionsv1.ClusterScoped
		},
		"shown without one": func(r *v1alpha1.CustomResourceRule, _ *apiextensionsv1.CustomResourceDefinition) {
			r.Direction, r.Select = v1alpha1.FromHost, &v1alpha1.HostSelection{Names: []string{"a"}}
		},
	} {
		spec, host := spec.DeepCopy(), host.DeepCopy()
		change(spec, host)
		if _, err := compile(t, *spec).Definition(host); err == nil {
			t.Errorf("%s: there is a definition", name)
		}
	}
}

// Secrets keep only the types that nobody acts on, and their names are an object's own.
func TestSecret(t *testing.T) {
	rule := compile(t, v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost,
		Fields: []v1alpha1.CustomResourceField{{Path: "spec.secretName", Result: "Secret"}}})
	one, two := decode(t, []byte("kind: Thing\nmetadata: {namespace: ns, name: x, uid: u1}")), decode(t, []byte("kind: Thing\nmetadata: {namespace: ns, name: x, uid: u2}"))
	if rule.ResultName(one, "tls") == rule.ResultName(two, "tls") {
		t.Error("an object gets the secret of the one before it")
	}
	name := rule.ResultName(one, "tls")
	if definition, object, ok := rules.ReadResult(name); !ok || definition != "things.example.org" || object != (tenant.Name{Namespace: "ns", Name: "x"}) {
		t.Errorf("%s, %v, %v", definition, object, ok)
	}
	if msgs := validation.IsDNS1123Subdomain(name.Name); len(msgs) == 0 {
		t.Error("an object of the tenant's can have that name")
	}
	labels, annotations := rule.ResultMarks(acme, one, "tls")
	if owner, err := tenant.ReadOwner(string(acme.ID.HostName(name)), labels, annotations); err != nil || owner.UID != "u1" {
		t.Errorf("%+v, %v", owner, err)
	}
	for from, want := range map[corev1.SecretType]corev1.SecretType{corev1.SecretTypeTLS: corev1.SecretTypeTLS, corev1.SecretTypeServiceAccountToken: corev1.SecretTypeOpaque, corev1.SecretTypeBootstrapToken: corev1.SecretTypeOpaque} {
		if got := rule.Secret(one, "tls", &corev1.Secret{Type: from, ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}); got.Type != want || len(got.Labels) > 0 {
			t.Errorf("%s: %s, %v", from, got.Type, got.Labels)
		}
	}
}

// FuzzDown gives a rule whatever a tenant may write: only what the rule names gets to
// the host, under the host's own name, and references lead to the tenant's own.
func FuzzDown(f *testing.F) {
	f.Add(`{"a": 1, "ref": "x", "list": [{"n": "y", "m": 2}], "mode": "one"}`, "default", "web", true)
	f.Add(`{"b": {"a": 1}, "ref": "../x", "list": {"n": "y"}, "mode": {"one": 1}}`, "a-b", "c", false)
	f.Add(`{"a": {"ref": "kube-system/x"}, "result": "tls", "list": [null, 1, [], {"n": 7}]}`, "a", "b.c", false)
	f.Add(`{"ref": null, "ns": "other", "list": [], "forced": "mine"}`, "x", "y", true)
	spec := v1alpha1.CustomResourceRule{Group: "example.org", Version: "v1", Kind: "Thing", Resource: "things", Direction: v1alpha1.ToHost, Fields: []v1alpha1.CustomResourceField{
		{Path: "spec.a"}, {Path: "spec.ref", Reference: "Secret"}, {Path: "spec.ns", Reference: "Namespace"}, {Path: "spec.list[].n", Reference: "Service"}, {Path: "spec.list[].m"},
		{Path: "spec.mode", Values: []string{"one", "two"}}, {Path: "spec.forced", Value: &apiextensionsv1.JSON{Raw: []byte(`{"x": 1}`)}}, {Path: "spec.result", Result: "Secret"},
	}}
	f.Fuzz(func(t *testing.T, text, namespace, name string, drop bool) {
		var body any
		if json.Unmarshal([]byte(text), &body) != nil {
			return
		}
		own := &unstructured.Unstructured{}
		whole, err := json.Marshal(map[string]any{"kind": "Thing", "spec": body, "status": body, "data": body})
		if err != nil || own.UnmarshalJSON(whole) != nil {
			return
		}
		own.SetNamespace(namespace)
		own.SetName(name)
		own.SetUID("u1")
		own.SetLabels(map[string]string{text: name})
		if spec := spec; drop {
			spec.OtherFields = v1alpha1.DropOthers
			check(t, compile(t, spec), own, drop)
			return
		}
		check(t, compile(t, spec), own, drop)
	})
}

func check(t *testing.T, rule *rules.Rule, own *unstructured.Unstructured, drop bool) {
	before := own.DeepCopy()
	hostObject, refusals := rule.Down(acme, own)
	if was, is := mustJSON(before.Object), mustJSON(own.Object); was != is {
		t.Fatalf("the tenant's object was changed: %s, %s", was, is)
	}
	if len(refusals) > 0 {
		return
	}
	if !drop {
		t.Fatalf("an object with data is not refused: %s", mustJSON(own.Object))
	}
	allowed := map[string]bool{"a": true, "ref": true, "ns": true, "list": true, "mode": true, "forced": true, "result": true}
	for key := range hostObject.Object {
		if key != "apiVersion" && key != "kind" && key != "metadata" && key != "spec" {
			t.Fatalf("%s is on the host", key)
		}
	}
	given, _ := own.Object["spec"].(map[string]any)
	spec := hostObject.Object["spec"].(map[string]any)
	for key, v := range spec {
		text, _ := v.(string)
		asked, _ := given[key].(string)
		switch {
		case !allowed[key]:
			t.Fatalf("spec.%s is on the host", key)
		case key == "a" && mustJSON(v) != mustJSON(given["a"]),
			key == "mode" && v != "one" && v != "two",
			key == "forced" && mustJSON(v) != `{"x":1}`,
			key == "ns" && (asked != own.GetNamespace() || text != acme.HostNamespace),
			key == "ref" && text != string(acme.ID.HostName(tenant.Name{Namespace: own.GetNamespace(), Name: asked})),
			key == "result" && text == string(acme.ID.HostName(tenant.Name{Namespace: own.GetNamespace(), Name: asked})):
			t.Fatalf("spec.%s is %v, of %v", key, v, given[key])
		}
	}
	name := tenant.Name{Namespace: own.GetNamespace(), Name: own.GetName()}
	owner, err := tenant.ReadOwner(hostObject.GetName(), hostObject.GetLabels(), hostObject.GetAnnotations())
	if name.Name != "" && (err != nil || owner.Name != name) {
		t.Fatalf("%+v, %v", owner, err)
	}
	for _, keys := range []map[string]string{hostObject.GetLabels(), hostObject.GetAnnotations()} {
		for key := range keys {
			if !tenant.IsKey(key) {
				t.Fatalf("the key %q is on the host", key)
			}
		}
	}
	if merged, difference := rule.Merge(hostObject, hostObject); difference != engine.Same {
		t.Fatalf("it differs from itself: %s", mustJSON(merged.Object))
	}
}

func mustJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}
