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

// Offers asks the container runtime for its handlers and what they can do, and
// proves gVisor with prove. It returns an error only when the runtime does not
// answer.
func Offers(ctx context.Context, runtime Statuser, prove func(context.Context) error) (Offer, error) {
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
		switch {
		case !known:
			o[sb] = fmt.Errorf("containerd has no handler %q", sb.Handler())
		case sb == tenant.GVisor:
			o[sb] = prove(ctx)
		case h.Features == nil || !h.Features.UserNamespaces:
			o[sb] = fmt.Errorf("handler %q has no user namespaces on this kernel", sb.Handler())
		default:
			o[sb] = nil
		}
	}
	return o, nil
}
