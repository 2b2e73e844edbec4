package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// Routes of a resource are installed by its first request. Every one of them is answered
// as if they had been there, however many come at once, and discovery knows all.
func TestEveryResourceAnswersItsFirstRequests(t *testing.T) {
	m, err := startMember(t.Context(), tenantConfig(t.TempDir(), "late", 40))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	k := client(t, m.admin(t))
	_, lists, err := discovery.ServerGroupsAndResources(k.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	_, known, err := client(t, w.b.admin(t)).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := resourceNames(lists), resourceNames(known); !slices.Equal(got, want) {
		t.Errorf("a new control plane has %v, another one %v", got, want)
	}
	var group sync.WaitGroup
	asked := 0
	for _, list := range lists {
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") {
				continue
			}
			asked++
			path := "/apis/" + list.GroupVersion + "/" + r.Name
			if list.GroupVersion == "v1" {
				path = "/api/v1/" + r.Name
			}
			for range 3 {
				group.Go(func() {
					body, err := k.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(t.Context())
					if err != nil || !strings.Contains(string(body), `"kind":"`+r.Kind+`List"`) {
						t.Errorf("%s: %.200s, error %v", path, body, err)
					}
				})
			}
		}
	}
	group.Wait()
	if asked < 50 {
		t.Errorf("asked for %d resources only", asked)
	}
	answersAsUpstream(t, m.admin(t))
}

func resourceNames(lists []*metav1.APIResourceList) []string {
	var names []string
	for _, list := range lists {
		for _, r := range list.APIResources {
			names = append(names, fmt.Sprint(list.GroupVersion, " ", r.Name, " ", r.Kind, " ", r.Namespaced, " ", r.Verbs, " ", r.ShortNames, " ", r.StorageVersionHash))
		}
	}
	slices.Sort(names)
	return names
}

// answersAsUpstream compares what is no resource, or no method of one, with the answers of
// Kubernetes' kube-apiserver 1.37.
func answersAsUpstream(t *testing.T, config *rest.Config) {
	t.Helper()
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/api", http.StatusOK},
		{http.MethodGet, "/api/v1", http.StatusOK},
		{http.MethodGet, "/api/v1/", http.StatusOK},
		{http.MethodPost, "/api/v1", http.StatusMethodNotAllowed},
		{http.MethodGet, "/api/v2", http.StatusNotFound},
		{http.MethodGet, "/apis", http.StatusOK},
		{http.MethodGet, "/apis/apps", http.StatusOK},
		{http.MethodGet, "/apis/apps/", http.StatusOK},
		{http.MethodGet, "/apis/apps/v1", http.StatusOK},
		{http.MethodGet, "/apis/apps/v1/nothings", http.StatusNotFound},
		{http.MethodGet, "/apis/nothing/v1/nothings", http.StatusNotFound},
		{http.MethodGet, "/api/v1/nothings", http.StatusNotFound},
		{http.MethodGet, "/api/v1/namespaces/default/nothings", http.StatusNotFound},
		{http.MethodGet, "/api/v1/namespaces/default/nodes", http.StatusNotFound},
		{http.MethodGet, "/api/v1/namespaces/default/namespaces", http.StatusNotFound},
		{http.MethodGet, "/api/v1/namespaces/default/status", http.StatusOK},
		{http.MethodGet, "/api/v1/namespaces/default/pods/p/nothing", http.StatusNotFound},
		{http.MethodGet, "/api/v1/pods/p", http.StatusNotFound},
		{http.MethodGet, "/api/v1/proxy/namespaces/default/pods/p", http.StatusNotFound},
		{http.MethodDelete, "/apis/apps/v1/deployments", http.StatusMethodNotAllowed},
		{http.MethodPost, "/apis/apps/v1/deployments", http.StatusMethodNotAllowed},
		{http.MethodPut, "/api/v1/namespaces/default/pods/p/log", http.StatusMethodNotAllowed},
		{http.MethodGet, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, config.Host+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != c.status {
			t.Errorf("%s %s answers %d, want %d", c.method, c.path, resp.StatusCode, c.status)
		}
	}
}
