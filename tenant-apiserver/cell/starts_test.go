package cell

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
)

// TestStartsInOrder: whoever is wanted comes first, the others in their order, and
// nobody keeps a turn that he does not use.
func TestStartsInOrder(t *testing.T) {
	t.Parallel()
	s := newStarts(1)
	leave, err := s.enter(t.Context(), func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	var wanted atomic.Int32
	came := make(chan int32)
	for i := range int32(3) {
		go func() {
			leave, err := s.enter(t.Context(), func() bool { return wanted.Load() == i })
			if err != nil {
				t.Error(err)
				return
			}
			came <- i
			leave()
		}()
		s.await(int(i) + 1)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gave := make(chan error)
	go func() {
		_, err := s.enter(ctx, func() bool { return false })
		gave <- err
	}()
	s.await(4)
	why := errors.New("the tenant was stopped")
	cancel(why)
	if err := <-gave; !errors.Is(err, why) {
		t.Errorf("a start that was called off: %v", err)
	}
	wanted.Store(2)
	leave()
	for _, want := range []int32{2, 0, 1} {
		if i := <-came; i != want {
			t.Errorf("%d came, want %d", i, want)
		}
	}
	leave, err = s.enter(t.Context(), func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// TestSettle: it is calm once nobody starts or waits to, not before.
func TestSettle(t *testing.T) {
	t.Parallel()
	s := newStarts(1)
	if err := s.settle(t.Context()); err != nil { // there is nobody
		t.Fatal(err)
	}
	leave, err := s.enter(t.Context(), func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func())
	go func() {
		leave, err := s.enter(t.Context(), func() bool { return true })
		if err != nil {
			t.Error(err)
		}
		second <- leave
	}()
	s.await(1)
	calm := make(chan error, 1)
	go func() { calm <- s.settle(t.Context()) }()
	leave()
	leave = <-second
	select {
	case <-calm:
		t.Error("calm while one starts")
	default:
	}
	leave()
	if err := <-calm; err != nil {
		t.Error(err)
	}
	leave, err = s.enter(t.Context(), func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.settle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// await waits until so many wait.
func (s *starts) await(n int) {
	for waiting := -1; waiting < n; runtime.Gosched() {
		s.mu.Lock()
		waiting = len(s.queue)
		s.mu.Unlock()
	}
}
