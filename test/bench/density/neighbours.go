package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// quietRequests is how many requests the quiet tenant makes, one after another.
	quietRequests = 500
	// floodClients is how many clients of its neighbour write and list without pause.
	floodClients = 16
)

// neighbours measures the requests of a quiet control plane: alone, and while
// another one of the same process is flooded.
func (w *ours) neighbours(ctx context.Context) error {
	if len(w.all) < 2 {
		return nil
	}
	quiet, err := w.all[0].client()
	if err != nil {
		return err
	}
	alone, err := ask(ctx, quiet, "alone")
	if err != nil {
		return err
	}
	flooding, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	failures := make(chan error, floodClients)
	for n := range floodClients {
		clients.Go(func() { failures <- w.flood(flooding, n) })
	}
	beside, err := ask(ctx, quiet, "beside")
	stop()
	clients.Wait()
	close(failures)
	for f := range failures {
		err = errors.Join(err, f)
	}
	if err != nil {
		return err
	}
	figure("quiet/alone/p99", milliseconds(quantile(alone, 0.99)), "ms")
	figure("quiet/beside-flood/p99", milliseconds(quantile(beside, 0.99)), "ms")
	figure("quiet/alone/p50", milliseconds(quantile(alone, 0.5)), "ms")
	figure("quiet/beside-flood/p50", milliseconds(quantile(beside, 0.5)), "ms")
	return nil
}

// ask creates, reads and deletes, and returns how long each took.
func ask(ctx context.Context, c kubernetes.Interface, name string) ([]time.Duration, error) {
	var times []time.Duration
	timed := func(f func() error) error {
		start := time.Now()
		err := f()
		times = append(times, time.Since(start))
		return err
	}
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	for n := range quietRequests / 3 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, n)}}
		err := errors.Join(
			timed(func() error { _, err := maps.Create(ctx, m, metav1.CreateOptions{}); return err }),
			timed(func() error { _, err := maps.Get(ctx, m.Name, metav1.GetOptions{}); return err }),
			timed(func() error { return maps.Delete(ctx, m.Name, metav1.DeleteOptions{}) }),
		)
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

// flood writes and lists at the second control plane until ctx ends. That it is told
// to slow down is what should happen.
func (w *ours) flood(ctx context.Context, client int) error {
	c, err := w.all[1].client()
	if err != nil {
		return err
	}
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	for n := 0; ctx.Err() == nil; n++ {
		m := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("flood-%d-%d", client, n%200)},
			Data:       map[string]string{"x": string(make([]byte, 1024))},
		}
		_, err := maps.Create(ctx, m, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
		}
		if err == nil && n%10 == 0 {
			_, err = maps.List(ctx, metav1.ListOptions{})
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsTooManyRequests(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return nil
}
