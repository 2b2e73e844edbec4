package v1alpha1_test

import (
	"strings"
	"testing"
)

// Registries of images are as names of images begin: with a registry, not with a scheme,
// a tag or a short name.
func TestImageRegistries(t *testing.T) {
	p := newPlans(t)
	for registry, good := range map[string]bool{
		"registry.example.org": true, "registry.example.org:5000/team/a_b": true, "docker.io/library": true, "localhost": true,
		"localhost/team": true, "registry:5000": true, "10.0.0.1:5000": true,
		"registry": false, "library/nginx": false, "https://registry.example.org": false, "registry.example.org/": false,
		"registry.example.org,docker.io": false, "docker.io/library/nginx:1": false, "*.example.org": false, "Registry.example.org": false, "": false,
	} {
		errs := p.judge(t, "  imageRegistries: ['"+registry+"']")
		if (len(errs) == 0) != good || !good && !strings.Contains(errs.ToAggregate().Error(), "imageRegistries") {
			t.Errorf("%q: %v", registry, errs)
		}
	}
	if errs := p.judge(t, "  imageRegistries: [docker.io, docker.io]"); len(errs) == 0 {
		t.Error("one registry may stand there twice")
	}
}

// PriorityClasses of plans are those of providers: never what nodes and the host cannot do
// without.
func TestPriorityClasses(t *testing.T) {
	p := newPlans(t)
	for class, good := range map[string]bool{
		"gold": true, "team.gold-2": true, "systemic": true,
		"system-node-critical": false, "system-cluster-critical": false, "system-": false, "system-mine": false, "Gold": false, "gold,calm": false, "": false,
	} {
		errs := p.judge(t, "  priorityClasses: ['"+class+"']")
		if (len(errs) == 0) != good || !good && !strings.Contains(errs.ToAggregate().Error(), "riorityClasses") {
			t.Errorf("%q: %v", class, errs)
		}
	}
	errs := p.judge(t, "  priorityClasses: [gold, system-node-critical]")
	if len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), "no tenant has them") {
		t.Errorf("the reason is not told: %v", errs)
	}
	if errs := p.judge(t, "  priorityClasses: [gold, gold]"); len(errs) == 0 {
		t.Error("one class may stand there twice")
	}
}
