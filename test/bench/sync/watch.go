package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// sightings are the times at which pods of a namespace were first seen, and first seen
// running, by a watch.
type sightings struct {
	mu          sync.Mutex
	there, runs map[string]time.Time // guarded by mu
	news        chan struct{}        // guarded by mu; closed, and another one made, when one more runs
	cancel      context.CancelFunc
	ended       chan struct{}
}

// sight watches the pods of a namespace that change from now on, until it is stopped.
func sight(ctx context.Context, api kubernetes.Interface, namespace string) (*sightings, error) {
	ctx, cancel := context.WithCancel(ctx)
	list, err := api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		cancel()
		return nil, err
	}
	w, err := api.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	s := &sightings{there: map[string]time.Time{}, runs: map[string]time.Time{}, news: make(chan struct{}), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		defer w.Stop()
		for e := range w.ResultChan() {
			s.note(e)
		}
	}()
	return s, nil
}

func (s *sightings) note(e watch.Event) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok || e.Type == watch.Deleted {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.there[pod.Name]; !seen {
		s.there[pod.Name] = now
	}
	if _, seen := s.runs[pod.Name]; !seen && pod.Status.Phase == corev1.PodRunning {
		s.runs[pod.Name] = now
		close(s.news)
		s.news = make(chan struct{})
	}
}

// wait waits until all of the pods were seen running.
func (s *sightings) wait(ctx context.Context, pods ...string) error {
	for i := 0; i < len(pods); {
		s.mu.Lock()
		_, runs := s.runs[pods[i]]
		news := s.news
		s.mu.Unlock()
		if runs {
			i++
			continue
		}
		select {
		case <-news:
		case <-s.ended:
			return fmt.Errorf("the watch ended, %d of %d pods run", i, len(pods))
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods run: %w", i, len(pods), context.Cause(ctx))
		}
	}
	return nil
}

// times returns when a pod was first seen, and first seen running.
func (s *sightings) times(pod string) (there, runs time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.there[pod], s.runs[pod]
}

func (s *sightings) stop() {
	s.cancel()
	<-s.ended
}

// bothSides are the sightings of a tenant's pods, where it sees them and on the host.
// They are there for all the pods of a measurement: a list and a watch for each would be
// a good part of the work there is.
type bothSides struct{ own, onHost *sightings }

// sightBoth watches both sides, until it is stopped.
func (w *world) sightBoth(ctx context.Context, c *cluster) (*bothSides, error) {
	own, err := sight(ctx, c.api, namespace)
	if err != nil {
		return nil, err
	}
	onHost, err := sight(ctx, w.host, c.tenant.HostNamespace)
	if err != nil {
		own.stop()
		return nil, err
	}
	return &bothSides{own, onHost}, nil
}

func (s *bothSides) stop() {
	s.own.stop()
	s.onHost.stop()
}
