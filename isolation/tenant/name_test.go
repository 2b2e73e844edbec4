package tenant_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/tenant"
)

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{
		"acme": true, "a": true, "1and1": true, "a-b": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "A": false, "a_b": false, "../x": false, "a.b": false,
		"-a": false, "a-": false, "ä": false, "kube-system": false, "host": false, "sublet-x": false, "a\n": false,
	} {
		if err := tenant.ValidateName(name); (err == nil) != ok {
			t.Errorf("ValidateName(%q) = %v, want ok=%v", name, err, ok)
		}
	}
}

// Joins that are not injective gave two objects one host name in other products.
func TestHostNameSeparatesNeighbours(t *testing.T) {
	id := tenant.ID("0d9f2c1e-1111-2222-3333-444455556666")
	pairs := [][2]tenant.Name{
		{{Namespace: "test", Name: "prod-nginx"}, {Namespace: "test-prod", Name: "nginx"}},
		{{Namespace: "a", Name: "b-x-c"}, {Namespace: "a-x-b", Name: "c"}},
		{{Namespace: "a", Name: "b.c"}, {Namespace: "a", Name: "b-c"}},
		{{Namespace: "a", Name: strings.Repeat("n", 252) + "1"}, {Namespace: "a", Name: strings.Repeat("n", 252) + "2"}},
	}
	for _, p := range pairs {
		if a, b := id.HostName(p[0]), id.HostName(p[1]); a == b {
			t.Errorf("%v and %v share the host name %s", p[0], p[1], a)
		}
	}
	n := tenant.Name{Namespace: "default", Name: "web"}
	if id.HostName(n) == tenant.ID("other").HostName(n) {
		t.Error("two tenants share a host name")
	}
	if got, want := id.HostName(n), tenant.HostName("default-web-325b611abd04d8bccae7"); got != want {
		t.Errorf("host names are not stable: got %s, want %s", got, want)
	}
}

func FuzzHostName(f *testing.F) {
	f.Add("u", "ns", "name", "n", "sname")
	f.Add("", "", "", "", "1")
	f.Fuzz(func(t *testing.T, uid, ns1, name1, ns2, name2 string) {
		id := tenant.ID(uid)
		a, b := tenant.Name{Namespace: ns1, Name: name1}, tenant.Name{Namespace: ns2, Name: name2}
		ha, hb := id.HostName(a), id.HostName(b)
		if a != b && ha == hb {
			t.Fatalf("%v and %v share %s", a, b, ha)
		}
		for _, h := range []string{string(ha), string(hb), tenant.HostNamespace(name1, id)} {
			if msgs := validation.IsDNS1035Label(h); len(msgs) > 0 {
				t.Fatalf("%q is no DNS-1035 label: %v", h, msgs)
			}
		}
		if msgs := validation.IsQualifiedName(tenant.HostLabel(name1)); len(msgs) > 0 {
			t.Fatalf("label key: %v", msgs)
		}
	})
}

func TestReadOwner(t *testing.T) {
	want := tenant.Owner{Tenant: "t1", Name: tenant.Name{Namespace: "ns", Name: "web"}, UID: "u1"}
	name := string(want.Tenant.HostName(want.Name))
	labels, annotations := want.Marks()
	if got, err := tenant.ReadOwner(name, labels, annotations); err != nil || got != want {
		t.Fatalf("ReadOwner = %v, %v; want %v", got, err, want)
	}
	breaks := map[string]func(l, a map[string]string){
		"no tenant":         func(l, _ map[string]string) { delete(l, tenant.LabelTenant) },
		"another manager":   func(l, _ map[string]string) { l[tenant.LabelManagedBy] = "kubectl" },
		"no uid":            func(_, a map[string]string) { delete(a, tenant.AnnotationUID) },
		"another namespace": func(_, a map[string]string) { a[tenant.AnnotationNamespace] = "other" },
	}
	for what, breakIt := range breaks {
		l, a := want.Marks()
		breakIt(l, a)
		if got, err := tenant.ReadOwner(name, l, a); err == nil {
			t.Errorf("%s: ReadOwner = %v, want an error", what, got)
		}
	}
	if _, err := tenant.ReadOwner("someone-elses", labels, annotations); err == nil {
		t.Error("a name that the owner's mapping does not give was accepted")
	}
}
