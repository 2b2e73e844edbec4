package syncer

import (
	"time"

	"sublet.dev/syncer/engine"
)

// Mark says how much of the host namespace a syncer has seen of one kind: the newest
// resource version ("" : none) and the number of objects.
type Mark struct {
	Version string
	Count   int
}

// Seen is what a syncer has seen of the objects that syncers made in the host
// namespace.
type Seen struct {
	Pods, Services, EndpointSlices, ConfigMaps, Secrets, NetworkPolicies, Claims, Ingresses Mark
}

// marks are where the engine notes what Seen says.
type marks struct {
	pods, services, endpointSlices, configMaps, secrets, networkPolicies, claims, ingresses engine.Mark
}

func (m *marks) seen() Seen {
	get := func(m *engine.Mark) Mark {
		version, count := m.Get()
		return Mark{version, count}
	}
	return Seen{
		Pods: get(&m.pods), Services: get(&m.services), EndpointSlices: get(&m.endpointSlices),
		ConfigMaps: get(&m.configMaps), Secrets: get(&m.secrets), NetworkPolicies: get(&m.networkPolicies),
		Claims: get(&m.claims), Ingresses: get(&m.ingresses),
	}
}

// Rest says whether the syncer has nothing to do now, and when it will have by itself
// (the replacement of tokens; the zero time: never). What it has seen was then carried
// out: as long as the host namespace is as seen says, and nothing changes in the
// tenant, a syncer that is stopped until due misses nothing.
func (s *Syncer) Rest() (due time.Time, seen Seen, quiet bool) {
	seen = s.seen.seen() // first: what comes after it must not be in it
	due, quiet = s.engine.Rest()
	return due, seen, quiet && s.customs.quiet()
}
