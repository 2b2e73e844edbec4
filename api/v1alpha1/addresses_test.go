package v1alpha1_test

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/api/v1alpha1"
)

// leadsSomewhere finds fields that may say where something is fetched from, sent to or
// connected with, by their names.
var leadsSomewhere = regexp.MustCompile(`(?i)ur[il]|endpoint|address|server|host|registr|repositor|chart|image|source|webhook|proxy|issuer|mirror|bucket|domain`)

// addresses are those fields, and what is done with them. All are in objects of the
// host's: that no tenant writes any is tested in test/syncer and test/attack.
var addresses = map[string]string{
	"VirtualCluster.spec.store.etcd.endpoints":      "the provider's etcd, which the tenant's cell connects to",
	"VirtualCluster.spec.authentication (anything)": "the provider says whose tokens are taken; the tenant's dialer connects to issuers",
	"VirtualCluster.status.apiAddress":              "said by the manager",
	"VirtualCluster.status.endpoint":                "said by the manager",
	"VirtualCluster.status.serverName":              "said by the manager",
	"Plan.spec.ingress.hostnames":                   "names that tenants may claim; nobody connects to them",
	"Plan.spec.hostResources":                       "names of resources",
	"Plan.spec.imageRegistries":                     "where tenants' images may come from; the provider writes it, and nodes pull what pods name",
	"Plan.spec.objects.resources":                   "names of resources",
	"Plan.spec.customResources.resource":            "names of resources",
}

// texts collects the paths of the fields of a type that hold text.
func texts(path string, of reflect.Type, found map[string]bool) {
	switch {
	case of == reflect.TypeFor[runtime.RawExtension]():
		found[path+" (anything)"] = true
		return
	case of.PkgPath() != "" && of.PkgPath() != reflect.TypeFor[v1alpha1.Plan]().PkgPath() && of.Kind() == reflect.Struct:
		return // metadata, conditions, quantities, times
	}
	switch of.Kind() {
	case reflect.String:
		found[path] = true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		texts(path, of.Elem(), found)
	case reflect.Map:
		texts(path, of.Key(), found)
		texts(path, of.Elem(), found)
	case reflect.Struct:
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if name == "" {
				continue // embedded
			}
			texts(path+"."+name, of.Field(i).Type, found)
		}
	}
}

// Whatever in our own objects may say where something leads to is the provider's to
// write, or reported. A field that comes is noticed.
func TestEveryAddressIsDecided(t *testing.T) {
	all := map[string]bool{}
	for _, of := range []reflect.Type{reflect.TypeFor[v1alpha1.VirtualCluster](), reflect.TypeFor[v1alpha1.Plan](), reflect.TypeFor[v1alpha1.Credential]()} {
		texts(of.Name(), of, all)
	}
	if len(v1alpha1.Manifests()) != 3 || len(all) < 30 {
		t.Fatalf("%d kinds, %d fields with text: look at all", len(v1alpha1.Manifests()), len(all))
	}
	for path := range all {
		last := path[strings.LastIndex(path, ".")+1:]
		if _, decided := addresses[path]; (leadsSomewhere.MatchString(last) || strings.HasSuffix(path, " (anything)")) && !decided {
			t.Errorf("%s may lead somewhere: who writes it?", path)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(addresses)) {
		if !all[path] {
			t.Errorf("there is no %s any more", path)
		}
	}
}
