package kube

import (
	"context"
	"errors"
	"testing"

	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/controller-manager/pkg/informerfactory"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"sublet.dev/tenant-apiserver/internal/informer"
)

// A controller that cannot be built keeps no other waiting, is tried again, and
// handlers are held only while something is built.
func TestLateControllerThatCannotBeBuilt(t *testing.T) {
	factory := informer.New(t.Context(), informer.Config{})
	held := 0
	c := &controllers{
		hold: func() func() { held++; return func() { held-- } },
		ctx: kcm.ControllerContext{
			InformerFactory:                 factory,
			ObjectOrMetadataInformerFactory: informerfactory.NewInformerFactory(factory, metadatainformer.NewSharedInformerFactory(nil, 0)),
		},
	}
	var order []string
	build := func(name string, failures int) lateController {
		return lateController{name, func(context.Context, kcm.ControllerContext) (kcm.Controller, error) {
			if order = append(order, name); held != 1 {
				t.Errorf("handlers are held %d times while %s is built", held, name)
			}
			if failures--; failures >= 0 {
				return nil, errors.New("on purpose")
			}
			return nothing{name}, nil
		}}
	}
	due := make(chan lateController, 2)
	due <- build("unlucky", 1)
	due <- build("other", 0)
	for built := 0; built < 2; {
		if c.begin(t.Context(), <-due, due) != nil {
			built++
		}
		if held != 0 {
			t.Fatal("handlers stay held")
		}
	}
	if len(order) != 3 || order[1] != "other" || order[2] != "unlucky" {
		t.Errorf("built in the order %v", order)
	}
}

// nothing is a controller without work.
type nothing struct{ name string }

func (n nothing) Name() string      { return n.name }
func (nothing) Run(context.Context) {}
