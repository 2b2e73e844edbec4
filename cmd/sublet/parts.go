package main

import (
	"context"
	"errors"
	"fmt"
)

// parts are goroutines of a process that are stopped one by one, the last started
// first, each waited for. It is not safe for concurrent use.
type parts struct {
	running []part
	failed  chan error // gets what the parts say that end before they are stopped
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan error
}

func newParts() *parts { return &parts{failed: make(chan error, 16)} }

// start runs a part until stop. The part outlives ctx's end, but not its values.
func (p *parts) start(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	p.running = append(p.running, part{name, cancel, done})
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			p.failed <- fmt.Errorf("%s: %w", name, err)
			err = nil // told
		}
		done <- err
	}()
}

// stop stops all parts, the last started first, and returns their errors.
func (p *parts) stop() error {
	var errs []error
	for len(p.running) > 0 {
		errs = append(errs, p.stopLast())
	}
	return errors.Join(errs...)
}

// stopLast stops the part that was started last. There must be one.
func (p *parts) stopLast() error {
	last := p.running[len(p.running)-1]
	p.running = p.running[:len(p.running)-1]
	last.cancel()
	if err := <-last.done; err != nil {
		return fmt.Errorf("stop %s: %w", last.name, err)
	}
	return nil
}

// wait waits until ctx ends, and returns nil, or a part fails.
func (p *parts) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.failed:
		return err
	}
}
