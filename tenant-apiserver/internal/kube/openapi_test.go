package kube

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	restful "github.com/emicklei/go-restful/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// Documents are rendered for the first client who asks, and whoever asks meanwhile has
// the same; admission, which only wants to know where they would be, has it at once.
func TestDocumentsWaitUntilSomebodyAsks(t *testing.T) {
	o := &openAPI{}
	o.v2, o.v3 = openAPIConfigs(sharedOpenAPI().v2.GetDefinitions)
	o.v2.Info.Version = "1.0"
	service := new(restful.WebService).Path("/apis/apps/v1")
	discovery.NewAPIVersionHandler(legacyscheme.Codecs, schema.GroupVersion{Group: "apps", Version: "v1"},
		discovery.APIResourceListerFunc(func() []metav1.APIResource { return nil })).AddToWebService(service)
	described := restful.NewContainer()
	described.Add(service)
	again := restful.NewContainer() // as the server itself has it
	again.Add(new(restful.WebService).Path("/apis/apps/v1"))
	o.describe(described, again)

	m, none := mux.NewPathRecorderMux("test"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"paths":{}}`)) })
	o.install(m, none, &openAPIV2{})
	ask := func(ctx context.Context, path string) (string, int) {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil).WithContext(ctx))
		return w.Body.String(), w.Code
	}
	url := func(ctx context.Context) string {
		body, _ := ask(ctx, openAPIV3)
		var found handler3.OpenAPIV3Discovery
		if err := json.Unmarshal([]byte(body), &found); err != nil {
			t.Errorf("%q: %v", body, err)
		}
		return found.Paths["apis/apps/v1"].ServerRelativeURL
	}
	inside := context.WithValue(t.Context(), loopbackKey{}, true)
	if got := url(inside); got != "/openapi/v3/apis/apps/v1" || o.done.Load() != nil {
		t.Errorf("admission is told %q, documents rendered: %v", got, o.done.Load() != nil)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if got := url(t.Context()); !strings.HasPrefix(got, "/openapi/v3/apis/apps/v1?hash=") {
				t.Errorf("a client is told %q", got)
			}
		})
	}
	group.Wait()
	if got := url(inside); !strings.Contains(got, "?hash=") {
		t.Errorf("admission is told %q once there are documents", got)
	}
	if body, code := ask(t.Context(), "/openapi/v3/apis/apps/v1"); code != http.StatusOK || !strings.Contains(body, `"version":"1.0"`) || !strings.Contains(body, "getAPIResources") && !strings.Contains(body, "/apis/apps/v1/") {
		t.Errorf("%d %.300s", code, body)
	}
	if o.routes != nil {
		t.Error("the routes are kept")
	}
}
