package manager

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// hostnameWorld is what a decision depends on, by host namespace.
type hostnameWorld struct {
	tenants map[string]hostnameTenant
	had     map[string][]string // sorted
	serves  map[string][]string
	asks    []hostnameAsk
}

type hostnameTenant struct {
	name    string
	allowed []string // by its plan
}

// hostnameAsk is a ConfigMap that asks for hostnames.
type hostnameAsk struct {
	object *corev1.ConfigMap
	text   string
	names  []string
}

func (a hostnameAsk) answered(answer map[string]string) bool {
	for k, v := range answer {
		if had, ok := a.object.Annotations[k]; !ok || had != v {
			return false
		}
	}
	return true
}

func newHostnameAsk(m *corev1.ConfigMap) hostnameAsk {
	text := m.Data[tenant.HostnamesKey]
	names := strings.Fields(text)
	return hostnameAsk{object: m, text: text, names: names[:min(len(names), policy.MaxHostnamesOfOne)]}
}

// decide says which tenant has which names from now on, sorted; freed says whether one
// had some before that it has no more.
func (w hostnameWorld) decide() (has map[string][]string, freed bool) {
	has = map[string][]string{}
	asked := map[string]map[string]bool{}
	for _, a := range w.asks {
		if asked[a.object.Namespace] == nil {
			asked[a.object.Namespace] = map[string]bool{}
		}
		for _, name := range a.names {
			asked[a.object.Namespace][name] = true
		}
	}
	for namespace, names := range w.had {
		for _, name := range names {
			if asked[namespace][name] {
				has[namespace] = append(has[namespace], name)
			} else {
				freed = true
			}
		}
	}
	slices.SortFunc(w.asks, func(a, b hostnameAsk) int {
		return cmp.Or(a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time), cmp.Compare(a.object.UID, b.object.UID))
	})
	others := w.owners(has)
	for _, a := range w.asks {
		namespace := a.object.Namespace
		for _, name := range a.names {
			if len(has[namespace]) >= policy.MaxHostnames {
				break
			}
			if w.allows(namespace, name) && !slices.Contains(has[namespace], name) && !others.another(namespace, name) {
				has[namespace] = append(has[namespace], name)
				others.add(namespace, name)
			}
		}
	}
	for namespace := range has {
		slices.Sort(has[namespace])
	}
	return has, freed
}

func (w hostnameWorld) allows(namespace, name string) bool {
	t, ok := w.tenants[namespace]
	return ok && policy.HostnameAllowed(name, t.name, t.allowed)
}

// owners are the namespaces that have names, had some before, or serve some.
func (w hostnameWorld) owners(has map[string][]string) hostnameOwners {
	o := hostnameOwners{names: map[string][]string{}, within: map[string][]string{}}
	for _, of := range []map[string][]string{has, w.had, w.serves} {
		for namespace, names := range of {
			for _, name := range names {
				o.add(namespace, name)
			}
		}
	}
	return o
}

// hostnameOwners finds who has a name that overlaps another, as
// [policy.HostnamesOverlap] has it, without comparing with all.
type hostnameOwners struct {
	names  map[string][]string // namespaces by name
	within map[string][]string // namespaces by each suffix (.y.example) that a name of theirs is below
}

func (o hostnameOwners) add(namespace, name string) {
	note := func(in map[string][]string, key string) {
		if !slices.Contains(in[key], namespace) {
			in[key] = append(in[key], namespace)
		}
	}
	note(o.names, name)
	for suffix := range suffixes(name) {
		note(o.within, suffix)
	}
}

// another says whether another namespace has a name that overlaps this one.
func (o hostnameOwners) another(namespace, name string) bool {
	others := func(namespaces []string) bool {
		return slices.ContainsFunc(namespaces, func(n string) bool { return n != namespace })
	}
	if others(o.names[name]) {
		return true
	}
	for suffix := range suffixes(name) {
		if others(o.names["*"+suffix]) {
			return true
		}
	}
	suffix, wild := strings.CutPrefix(name, "*")
	return wild && others(o.within[suffix])
}

// suffixes are those of a name that begin with a dot: .y.example and .example of
// x.y.example, and of *.y.example.
func suffixes(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '.' && !yield(name[i:]) {
				return
			}
		}
	}
}

// answer says which of the names that were asked for the tenant has, and which others
// have.
func (w hostnameWorld) answer(a hostnameAsk, has map[string][]string) (granted, taken []string) {
	for _, name := range a.names {
		switch {
		case slices.Contains(has[a.object.Namespace], name):
			granted = append(granted, name)
		case w.allows(a.object.Namespace, name) && len(has[a.object.Namespace]) < policy.MaxHostnames:
			taken = append(taken, name)
		}
	}
	return granted, taken
}
