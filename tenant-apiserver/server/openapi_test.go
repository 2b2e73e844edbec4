package server

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// openAPIV2Paths returns the paths of a tenant's OpenAPI of version 2, with what the
// answer of a GET is described as.
func openAPIV2Paths(t *testing.T, m *member) map[string]string {
	t.Helper()
	data, err := client(t, m.admin(t)).Discovery().RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]struct{ Get *spec.Operation }
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for path, item := range document.Paths {
		if item.Get != nil && item.Get.Responses != nil {
			paths[path] = item.Get.Responses.StatusCodeResponses[200].Description
		}
	}
	return paths
}

// What older clients validate objects with has a tenant's own custom resources, in
// the format that they ask for, and nobody else's.
func TestOpenAPIV2(t *testing.T) {
	const path, definition = "/apis/v2.example.org/v1/things", "org.example.v2.v1.Thing"
	definitions := func(m *member) (found bool, all int) {
		t.Helper()
		document, err := client(t, m.admin(t)).Discovery().OpenAPISchema() // as kubectl did, in protobuf
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range document.Definitions.AdditionalProperties {
			found = found || d.Name == definition
		}
		return found, len(document.Definitions.AdditionalProperties)
	}
	remove := things(t, w.a, "v2.example.org")
	await(t, "the custom resource in the document", func(ctx context.Context) (bool, error) {
		return openAPIV2Paths(t, w.a)[path] != "", nil
	})
	if found, n := definitions(w.a); !found || n < 500 {
		t.Errorf("%d definitions, its own among them: %v", n, found)
	}
	if found, _ := definitions(w.b); found || openAPIV2Paths(t, w.b)[path] != "" || openAPIV2Paths(t, w.b)["/api/v1/pods"] == "" {
		t.Error("another tenant has it, or has nothing")
	}
	remove()
	await(t, "its end", func(ctx context.Context) (bool, error) { return openAPIV2Paths(t, w.a)[path] == "", nil })
}

// The documents say by their ETags whether they are others, and not when they were put
// together, which every start of a control plane does.
func TestOpenAPIHasNoDate(t *testing.T) {
	config := w.a.admin(t)
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, known string) (code int, header http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", known)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return resp.StatusCode, resp.Header
	}
	for _, path := range []string{"/openapi/v2", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"} {
		code, header := get(path, "")
		if code != http.StatusOK || header.Get("Last-Modified") != "" || header.Get("ETag") == "" {
			t.Errorf("%s: %d %v", path, code, header)
		}
		if code, header := get(path, header.Get("ETag")); code != http.StatusNotModified || header.Get("Last-Modified") != "" {
			t.Errorf("%s, if it is another: %d %v", path, code, header)
		}
	}
}
