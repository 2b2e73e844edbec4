package podnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Endpoint is a pod's place in the network. It is a value; nobody changes it once
// made.
type Endpoint struct {
	// ContainerID is the sandbox's id at the runtime: it names the endpoint.
	ContainerID string `json:"containerID"`
	// Namespace, Pod and UID are the host pod's.
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
	// Interface is the host's end of the pod's cable.
	Interface string `json:"interface"`
	// Addresses are the pod's own, in the order the IPAM gave them.
	Addresses []netip.Addr `json:"addresses"`
}

// validID is what a container id may be: it becomes a file's name.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// validInterface is what an interface may be called: nothing that means more than a
// name where rules are written.
var validInterface = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,14}$`)

func (e Endpoint) validate() error {
	switch {
	case !validID.MatchString(e.ContainerID):
		return fmt.Errorf("invalid container id %q", e.ContainerID)
	case e.Namespace == "" || e.Pod == "":
		return errors.New("namespace or pod name is missing")
	case !validInterface.MatchString(e.Interface):
		return fmt.Errorf("invalid interface name %q", e.Interface)
	case len(e.Addresses) == 0:
		return errors.New("it has no address")
	}
	for _, a := range e.Addresses {
		if !a.IsValid() || !a.IsGlobalUnicast() {
			return fmt.Errorf("invalid pod address %v", a)
		}
	}
	return nil
}

// Suffixes of the registry's files.
const (
	known = ".json" // an endpoint
	gone  = ".gone" // an endpoint that was deleted while no agent listened
)

// Registry is the endpoints of a node, in memory and on disk. It is safe for
// concurrent use.
type Registry struct {
	dir string

	mu        sync.RWMutex // guards what follows
	endpoints map[string]Endpoint
	byAddress map[netip.Addr]Endpoint
}

// OpenRegistry reads the endpoints in dir, which it makes if there is none, and
// forgets those that were deleted meanwhile. A file that is no endpoint is an error:
// to go on without it would leave a pod without its fence.
func OpenRegistry(dir string) (*Registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the endpoint registry: %w", err)
	}
	r := &Registry{dir: dir, endpoints: map[string]Endpoint{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the endpoint registry: %w", err)
	}
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), gone); ok {
			if err := r.forget(id); err != nil {
				return nil, err
			}
		}
	}
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), known); ok {
			if err := r.read(id); err != nil {
				return nil, err
			}
		}
	}
	r.index()
	return r, nil
}

func (r *Registry) path(id, suffix string) string { return filepath.Join(r.dir, id+suffix) }

// read loads one endpoint; one that is gone again is none.
func (r *Registry) read(id string) error {
	b, err := os.ReadFile(r.path(id, known))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	var e Endpoint
	err = json.Unmarshal(b, &e)
	if err == nil {
		err = e.validate()
	}
	if err == nil && e.ContainerID != id {
		err = fmt.Errorf("it names container %q", e.ContainerID)
	}
	if err != nil {
		return fmt.Errorf("endpoint file %s is not valid: %w: delete it together with its pod's sandbox", r.path(id, known), err)
	}
	r.endpoints[id] = e
	return nil
}

// Put adds or replaces an endpoint; it is on disk when Put returns nil. An address
// that another endpoint still has is taken from that one: the IPAM gave it anew.
func (r *Registry) Put(e Endpoint) error {
	if err := e.validate(); err != nil {
		return fmt.Errorf("endpoint of pod %s/%s: %w", e.Namespace, e.Pod, err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write endpoint: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, other := range r.endpoints {
		if id != e.ContainerID && shares(other, e) {
			if err := r.remove(id); err != nil {
				return err
			}
		}
	}
	if err := replaceFile(r.path(e.ContainerID, known), b); err != nil {
		return fmt.Errorf("write endpoint: %w", err)
	}
	r.endpoints[e.ContainerID] = e
	r.index()
	return nil
}

// shares says whether two endpoints have an address in common.
func shares(a, b Endpoint) bool {
	return slices.ContainsFunc(a.Addresses, func(x netip.Addr) bool { return slices.Contains(b.Addresses, x) })
}

// Delete forgets an endpoint. It returns nil when there is none.
func (r *Registry) Delete(id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("invalid container id %q", id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.index()
	return r.remove(id)
}

// remove does Delete's work; the caller must hold mu.
func (r *Registry) remove(id string) error {
	delete(r.endpoints, id)
	return r.forget(id)
}

// forget removes an endpoint's files.
func (r *Registry) forget(id string) error {
	for _, suffix := range []string{known, gone} {
		if err := os.Remove(r.path(id, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete endpoint: %w", err)
		}
	}
	return nil
}

// index rebuilds byAddress; the caller must hold mu or be the only user.
func (r *Registry) index() {
	r.byAddress = map[netip.Addr]Endpoint{}
	for _, e := range r.endpoints {
		for _, a := range e.Addresses {
			r.byAddress[a] = e
		}
	}
}

// Get returns the endpoint of a container.
func (r *Registry) Get(id string) (Endpoint, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.endpoints[id]
	return e, ok
}

// At returns the endpoint that has an address.
func (r *Registry) At(a netip.Addr) (Endpoint, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byAddress[a]
	return e, ok
}

// List returns all endpoints, sorted by container id. The caller owns the slice.
func (r *Registry) List() []Endpoint {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]Endpoint, 0, len(r.endpoints))
	for _, e := range r.endpoints {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return strings.Compare(a.ContainerID, b.ContainerID) })
	return all
}

// replaceFile writes a file so that a crash leaves the old content or the new.
func replaceFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".endpoint-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
