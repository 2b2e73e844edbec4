package syncer

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
)

// made counts what is made, and says with what.
type made struct {
	engine.Writer[*corev1.ConfigMap]
	creates atomic.Int64
}

func (m *made) Create(_ context.Context, o *corev1.ConfigMap, _ metav1.CreateOptions) (*corev1.ConfigMap, error) {
	m.creates.Add(1)
	return o, nil
}

// TestOneWaits: while the host cannot list a kind, one write of it waits, and all others
// are to come again: they do not keep the workers. Nothing is made unwatched.
func TestOneWaits(t *testing.T) {
	lists := make(chan struct{}, 1)
	kind := hostcache.Kind{Resource: "things", Example: &corev1.ConfigMap{}, Source: func(string) cache.ListerWatcher {
		return &cache.ListWatch{ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			select {
			case lists <- struct{}{}:
			default:
			}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}}
	}}
	space := hostcache.New().Space("a")
	leave, err := space.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	view, api := space.Guest(kind), &made{}
	if _, err := space.LetIn(view); err != nil {
		t.Fatal(err)
	}
	w := watched[*corev1.ConfigMap]{Writer: api, view: view, patience: time.Hour, one: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := w.Create(ctx, &corev1.ConfigMap{}, metav1.CreateOptions{})
		waited <- err
	}()
	<-lists
	for len(w.one) == 0 {
		select {
		case err := <-waited:
			t.Fatalf("the first did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if _, err := w.Create(t.Context(), &corev1.ConfigMap{}, metav1.CreateOptions{}); !errors.Is(err, engine.ErrUnseen) {
		t.Errorf("the second: %v", err)
	}
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	w.patience = 0
	if _, err := w.Create(t.Context(), &corev1.ConfigMap{}, metav1.CreateOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that has no patience: %v", err)
	}
	if n := api.creates.Load(); n != 0 {
		t.Errorf("%d were made that nobody watches", n)
	}
}
