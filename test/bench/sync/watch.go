package main

import (
	"context"
	"fmt"
	"strings"
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
	prefix      string
	want        int
	enough      chan struct{} // closed when that many run
	cancel      context.CancelFunc
	ended       chan struct{}
}

// sightOne watches one pod until it runs. Nobody has to look through others for that.
func sightOne(ctx context.Context, api kubernetes.Interface, namespace, name string) (*sightings, error) {
	return look(ctx, api, namespace, name, "metadata.name="+name, 1)
}

// sight watches the pods of a namespace with a prefix until want of them run.
func sight(ctx context.Context, api kubernetes.Interface, namespace, prefix string, want int) (*sightings, error) {
	return look(ctx, api, namespace, prefix, "", want)
}

func look(ctx context.Context, api kubernetes.Interface, namespace, prefix, fields string, want int) (*sightings, error) {
	ctx, cancel := context.WithCancel(ctx)
	list, err := api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: fields})
	if err != nil {
		cancel()
		return nil, err
	}
	w, err := api.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: fields, ResourceVersion: list.ResourceVersion})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	s := &sightings{prefix: prefix, there: map[string]time.Time{}, runs: map[string]time.Time{}, want: want, enough: make(chan struct{}), cancel: cancel, ended: make(chan struct{})}
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
	if !ok || e.Type == watch.Deleted || !strings.HasPrefix(pod.Name, s.prefix) {
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
		if len(s.runs) == s.want {
			close(s.enough)
		}
	}
}

// wait waits until as many run as were wanted.
func (s *sightings) wait(ctx context.Context) error {
	select {
	case <-s.enough:
		return nil
	case <-s.ended:
		return fmt.Errorf("the watch ended, %d of %d pods run", len(s.runs), s.want)
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d of %d pods run: %w", len(s.runs), s.want, context.Cause(ctx))
	}
}

func (s *sightings) stop() {
	s.cancel()
	<-s.ended
}
