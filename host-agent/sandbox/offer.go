package sandbox

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

// Offer says which sandboxes a node may offer; a nil error means that it works,
// any other why it does not.
type Offer map[tenant.Sandbox]error

// Labels returns the node's labels: "true" for a sandbox that works, nil (to be
// removed) for one that does not.
func (o Offer) Labels() map[string]*string {
	yes := "true"
	labels := make(map[string]*string, len(o))
	for s, err := range o {
		labels[s.NodeLabel()] = nil
		if err == nil {
			labels[s.NodeLabel()] = &yes
		}
	}
	return labels
}

// Statuser is the part of CRI that Offers asks.
type Statuser interface {
	Status(ctx context.Context, in *runtimev1.StatusRequest, opts ...grpc.CallOption) (*runtimev1.StatusResponse, error)
}

// Proofs are what is tried, by sandbox, before a node offers it.
type Proofs map[tenant.Sandbox]func(context.Context) error

// Offers asks the container runtime for its handlers and what they can do, and
// tries the proofs; a sandbox without a proof is not offered. It returns an error
// only when the runtime does not answer.
func Offers(ctx context.Context, runtime Statuser, proofs Proofs) (Offer, error) {
	s, err := runtime.Status(ctx, &runtimev1.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask containerd for its runtime handlers: %w", err)
	}
	handlers := map[string]*runtimev1.RuntimeHandler{}
	for _, h := range s.RuntimeHandlers {
		handlers[h.Name] = h
	}
	o := Offer{}
	for _, sb := range tenant.Sandboxes() {
		h, known := handlers[sb.Handler()]
		prove := proofs[sb]
		switch {
		case !known:
			o[sb] = fmt.Errorf("containerd has no handler %q", sb.Handler())
		case sb == tenant.RuncUserNS && (h.Features == nil || !h.Features.UserNamespaces):
			o[sb] = fmt.Errorf("handler %q has no user namespaces", sb.Handler())
		case prove == nil:
			o[sb] = fmt.Errorf("nobody proved that %s works", sb)
		default:
			o[sb] = prove(ctx)
		}
	}
	return o, nil
}
