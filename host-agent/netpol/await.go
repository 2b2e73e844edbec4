package netpol

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

const (
	// awaitFor is how long a pod's start waits for what the host API says of it to
	// be known here. The kubelet tries again.
	awaitFor = 10 * time.Second
	// lookAgain is when the API is asked again though nothing new was learned: a
	// policy that was waited for may be gone.
	lookAgain = time.Second
)

// ErrUnknownPod is returned for a pod that the host API does not know here, or whose
// policies are not all known yet.
var ErrUnknownPod = errors.New("the pod or its network policies are not known yet")

// Await returns nil once all that policies ask about an endpoint is known: its pod,
// and the policies that are in its host namespace at the time of the call. So its
// first packet is under them. Pods that are no tenant's need not be known.
func (e *Enforcer) Await(ctx context.Context, endpoint podnet.Endpoint) error {
	if !tenant.IsHostNamespace(endpoint.Namespace) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, awaitFor)
	defer cancel()
	for {
		e.mu.Lock()
		api := e.policies
		e.mu.Unlock()
		if api == nil {
			return ErrNotReady
		}
		list, err := api.NetworkPolicies(endpoint.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list the network policies of namespace %s: %w", endpoint.Namespace, err)
		}
		known, learned := e.knows(endpoint, list.Items)
		if known {
			return nil
		}
		select {
		case <-learned:
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return fmt.Errorf("pod %s/%s: %w", endpoint.Namespace, endpoint.Pod, ErrUnknownPod)
		}
	}
}

// knows says whether a pod and policies are known, and returns what is closed when
// more is.
func (e *Enforcer) knows(endpoint podnet.Endpoint, policies []networkingv1.NetworkPolicy) (bool, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.world.local[keyOf(endpoint)]; !ok {
		return false, e.learned
	}
	have := map[types.UID]string{}
	for _, p := range e.world.policies[endpoint.Namespace] {
		have[p.UID] = p.ResourceVersion
	}
	for i := range policies {
		version, ok := have[policies[i].UID]
		if !ok || older(version, policies[i].ResourceVersion) {
			return false, e.learned
		}
	}
	return true, e.learned
}

// older says whether a resource version comes before another; they are numbers.
func older(a, b string) bool {
	if a == b {
		return false
	}
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX != nil || errY != nil || x < y
}

func keyOf(endpoint podnet.Endpoint) podKey {
	return podKey{endpoint.Namespace, endpoint.Pod, types.UID(endpoint.UID)}
}

// tenant begins what is rendered of a tenant: all but its endpoints here.
func (w world) tenant(f policy.Fence) *Tenant {
	t := &Tenant{Fence: f, Remote: w.remotePods(f.Namespace), Pods: map[netip.Addr]Pod{}, Policies: w.policies[f.Namespace], NodePorts: w.nodePorts[f.Namespace], Balanced: w.balanced[f.Namespace],
		Masks: w.masks(f.Tenant), Ways: w.ways[f.Namespace]}
	for _, a := range t.Remote {
		t.Pods[a] = w.facts[a]
	}
	return t
}

// ingress returns the IPv4 addresses of the pods that a fence lets in: of those of the
// provider's here and elsewhere.
func (w world) ingress(f policy.Fence, system []podnet.Endpoint) []netip.Addr {
	var all []netip.Addr
	for _, namespace := range f.IngressFrom {
		all = append(all, w.remote[namespace]...)
	}
	for _, e := range system {
		if slices.Contains(f.IngressFrom, e.Namespace) {
			all = append(all, e.Addresses...)
		}
	}
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.Is4() })
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// add adds an endpoint, and what is known of its pod.
func (t *Tenant) add(endpoint podnet.Endpoint, w world) {
	t.Endpoints = append(t.Endpoints, endpoint)
	if pod, ok := w.local[keyOf(endpoint)]; ok {
		for _, a := range endpoint.Addresses {
			t.Pods[a] = pod
		}
	}
}
