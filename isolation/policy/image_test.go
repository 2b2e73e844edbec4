package policy

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

// What is taken for an image of a registry is what runtimes pull from there.
func TestFullImage(t *testing.T) {
	parts := []string{"a", "b.c", "d:5000", "localhost", "docker.io", "library", "index.docker.io", "E", "f"}
	random := rand.New(rand.NewPCG(1, 2))
	held := 0
	for range 20000 {
		var image []string
		for range 1 + random.IntN(4) {
			image = append(image, parts[random.IntN(len(parts))])
		}
		name := strings.Join(image, "/")
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			continue
		}
		for _, registry := range []string{"docker.io", "docker.io/library", "b.c", "b.c/a", "d:5000", "localhost", "a", "f", "E"} {
			if !fromRegistry(name, registry) {
				continue
			}
			held++
			// docker.io/a is written for docker.io/library/a, which is in docker.io, too
			if full := ref.String(); !strings.HasPrefix(full, registry+"/") {
				t.Errorf("%s is taken for one of %s: it is %s", name, registry, full)
			}
		}
	}
	if held < 1000 {
		t.Errorf("only %d were from a registry", held)
	}
}
