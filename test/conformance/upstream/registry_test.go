package upstream

import (
	"testing"

	"sublet.dev/test/registry"
)

// serveImages has a registry on the machine serve the images of archives, and has the
// node ask it for the images of every registry: tests whose pods always pull find
// theirs there. It ends with the test.
func serveImages(t *testing.T, archives []string, registries string) {
	t.Helper()
	registry.Tell(t, registries, "_default", registry.Serve(t, archives...))
}
