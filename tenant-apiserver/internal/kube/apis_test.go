package kube

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	restful "github.com/emicklei/go-restful/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

var things = schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "things"}

// A record that does not have what is served is refused: discovery would not know it.
func TestRecordHasToBeComplete(t *testing.T) {
	group := &genericapiserver.APIGroupInfo{
		PrioritizedVersions:          []schema.GroupVersion{things.GroupVersion()},
		VersionedResourcesStorageMap: map[string]map[string]rest.Storage{"v1": {"things": nil, "things/status": nil}},
	}
	record := &apiRecord{
		Versions: []versionRecord{{Group: things.Group, Version: "v1", Resources: []metav1.APIResource{{Name: "things"}}}},
		Equivalents: []equivalentRecord{
			{things, "", things.GroupVersion().WithKind("Thing"), "things"},
			{things, "status", things.GroupVersion().WithKind("Thing"), "things"},
		},
	}
	apis, err := record.use([]*genericapiserver.APIGroupInfo{group})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is registered a second time: a webhook would be called twice.
	allRegistered{apis.equivalents}.RegisterKindFor(things, "", things.GroupVersion().WithKind("Thing"))
	if same := apis.equivalents.EquivalentResourcesFor(things, ""); len(same) != 1 {
		t.Errorf("equivalents %v", same)
	}
	for _, spoil := range []func(*apiRecord){
		func(r *apiRecord) { r.Equivalents = r.Equivalents[:1] },
		func(r *apiRecord) { r.Versions = nil },
	} {
		less := *record
		spoil(&less)
		if _, err := less.use([]*genericapiserver.APIGroupInfo{group}); err == nil || !strings.Contains(err.Error(), "review internal/kube") {
			t.Errorf("error %v", err)
		}
	}
}

// Who comes while a resource is installed waits for that, which happens once; everything
// that is no resource is the next router's.
func TestLateResources(t *testing.T) {
	var installed int // by once
	begun, release := make(chan struct{}), make(chan struct{})
	late := &lateResources{
		next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		of: map[schema.GroupVersionResource]*lateResource{
			things: {install: func() (*restful.Container, error) {
				close(begun)
				<-release
				installed++
				container := newContainer(legacyscheme.Codecs)
				service := new(restful.WebService).Path("/apis/example.org/v1")
				service.Route(service.GET("/things").To(func(_ *restful.Request, resp *restful.Response) { resp.WriteHeader(http.StatusAccepted) }))
				container.Add(service)
				return container, nil
			}},
			things.GroupVersion().WithResource("broken"): {install: func() (*restful.Container, error) { return nil, errors.New("cannot be") }},
		},
	}
	ask := func(path string) int {
		w := httptest.NewRecorder()
		late.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			if code := ask("/apis/example.org/v1/things"); code != http.StatusAccepted {
				t.Errorf("answer %d", code)
			}
		})
	}
	<-begun
	for _, path := range []string{"/apis/example.org/v1", "/apis/example.org/v1/others", "/apis/example.org/v2/things", "/api/v1/things", "/healthz", "/apis/example.org//things"} {
		if code := ask(path); code != http.StatusTeapot {
			t.Errorf("%s answers %d", path, code)
		}
	}
	close(release)
	waiting.Wait()
	if code := ask("/apis/example.org/v1/namespaces/x/things/y/nothing"); code != http.StatusNotFound || installed != 1 {
		t.Errorf("a path that it does not have: %d; installed %d times", code, installed)
	}
	if code := ask("/apis/example.org/v1/broken"); code != http.StatusInternalServerError {
		t.Errorf("a resource that cannot be installed answers %d", code)
	}
}
