package tenant_test

import (
	"strings"
	"testing"

	"sublet.dev/isolation/tenant"
)

func TestIsKey(t *testing.T) {
	labels, annotations := tenant.Owner{Tenant: "t", Name: tenant.Name{Namespace: "default", Name: "web"}, UID: "u"}.Marks()
	own := append(tenant.Keys(), tenant.HostLabel("app"), tenant.HostLabel(""), tenant.AnnotationField+"0123456789abcdef", tenant.AnnotationExternalName)
	for key := range labels {
		own = append(own, key)
	}
	for key := range annotations {
		own = append(own, key)
	}
	for _, key := range own {
		if !tenant.IsKey(key) {
			t.Errorf("%s is not ours", key)
		}
		// The same below, beside or around our domain is somebody else's.
		for _, other := range []string{"pcns." + key, "pcsa." + key, "x" + key, key + "x", key + "\n", "\n" + key, strings.ToUpper(key), " " + key, key[strings.Index(key, "/"):]} {
			if tenant.IsKey(other) {
				t.Errorf("%q is ours", other)
			}
		}
	}
	hashed := tenant.HostLabel("app")
	for _, key := range []string{"", "app", tenant.Domain, tenant.Domain + "/", tenant.Domain + "/x", tenant.AnnotationField, tenant.AnnotationField + "0123456789abcdeg",
		"label." + tenant.Domain + "/app", hashed[:len(hashed)-1], hashed + "0", "sub." + hashed, "labelxsublet.dev/" + strings.TrimPrefix(hashed, "label.sublet.dev/"),
		"subletxdev/field-0123456789abcdef", tenant.GVisor.NodeLabel()} {
		if tenant.IsKey(key) {
			t.Errorf("%q is ours", key)
		}
	}
}
