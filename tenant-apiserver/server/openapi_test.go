package server

import (
	"context"
	"encoding/json"
	"testing"

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
