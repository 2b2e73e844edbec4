package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// What a control plane holds that is used: a thousand objects. Controllers make the
// last two hundred and some of them of the deployments and services.
const (
	usedConfigMaps  = 400
	usedSecrets     = 300
	usedDeployments = 40
	usedReplicas    = 4
	usedServices    = 20
	usedValue       = 1024 // bytes, of config maps and secrets
)

// usedMain is the child that measures ours that are used: with a thousand objects, all
// their controllers at work on them, and three watchers from outside.
func usedMain(ctx context.Context, o options) (err error) {
	asCell()
	w := &ours{dir: o.dir}
	defer func() { err = errors.Join(err, w.stop()) }()
	for _, n := range []int{1, o.used} {
		var watchers []*exec.Cmd
		for len(w.all) < n {
			if err := w.add(ctx); err != nil {
				return err
			}
			watcher, err := w.all[len(w.all)-1].use(ctx, w.dir, len(w.all))
			if watcher != nil {
				watchers = append(watchers, watcher)
			}
			if err != nil {
				return errors.Join(err, end(watchers))
			}
		}
		defer func() { err = errors.Join(err, end(watchers)) }()
		if err := measure(ctx, n, o, ""); err != nil {
			return err
		}
	}
	if o.heap != "" {
		return writeHeap(o.heap + ".used")
	}
	return nil
}

// end ends clients and waits for them.
func end(clients []*exec.Cmd) error {
	var errs []error
	for _, c := range clients {
		errs = append(errs, c.Process.Signal(os.Interrupt), c.Wait())
	}
	return errors.Join(errs...)
}

// use fills the control plane and has a process watch it.
func (p *plane) use(ctx context.Context, dir string, n int) (watchers *exec.Cmd, err error) {
	c, leave, err := p.client()
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := fill(ctx, c); err != nil {
		return nil, err
	}
	kubeconfig, err := p.kubeconfig()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, fmt.Sprintf("watch-%d.kubeconfig", n))
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return nil, err
	}
	watchers, err = childProcess(ctx, "watch", file)
	if err != nil {
		return nil, err
	}
	lines, err := watchers.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := watchers.Start(); err != nil {
		return nil, err
	}
	_, err = bufio.NewReader(lines).ReadString('\n') // all of them have begun
	return watchers, err
}

// fill makes the objects and waits until the controllers have made theirs.
func fill(ctx context.Context, c kubernetes.Interface) error {
	value := strings.Repeat("x", usedValue)
	named := func(n int) metav1.ObjectMeta { return metav1.ObjectMeta{Name: fmt.Sprintf("used-%d", n)} }
	core := c.CoreV1()
	const ns = metav1.NamespaceDefault
	err := errors.Join(
		each(usedConfigMaps, func(n int) error {
			_, err := core.ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: named(n), Data: map[string]string{"x": value}}, metav1.CreateOptions{})
			return err
		}),
		each(usedSecrets, func(n int) error {
			_, err := core.Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: named(n), StringData: map[string]string{"x": value}}, metav1.CreateOptions{})
			return err
		}),
		each(usedServices, func(n int) error {
			s := &corev1.Service{ObjectMeta: named(n), Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": named(n).Name}, Ports: []corev1.ServicePort{{Port: 80}},
			}}
			_, err := core.Services(ns).Create(ctx, s, metav1.CreateOptions{})
			return err
		}),
		each(usedDeployments, func(n int) error {
			_, err := c.AppsV1().Deployments(ns).Create(ctx, deployment(named(n)), metav1.CreateOptions{})
			return err
		}))
	if err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		pods, err := core.Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		endpoints, err := core.Endpoints(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) >= usedDeployments*usedReplicas && len(endpoints.Items) >= usedServices, err
	})
}

// each calls make with 0 to n-1.
func each(n int, make func(int) error) error {
	for i := range n {
		if err := make(i); err != nil {
			return err
		}
	}
	return nil
}

func deployment(m metav1.ObjectMeta) *appsv1.Deployment {
	replicas, labels := int32(usedReplicas), map[string]string{"app": m.Name}
	return &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image.invalid/c:1"}}},
		},
	}}
}

// watchMain is three watchers, each on a connection of its own. It prints a line when
// all of them have what is there.
func watchMain(ctx context.Context, o options) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	there := make(chan struct{}, 3)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for _, begin := range []func(kubernetes.Interface) (watch.Interface, error){
		func(c kubernetes.Interface) (watch.Interface, error) {
			return c.CoreV1().ConfigMaps("").Watch(watching, metav1.ListOptions{})
		},
		func(c kubernetes.Interface) (watch.Interface, error) {
			return c.CoreV1().Secrets("").Watch(watching, metav1.ListOptions{})
		},
		func(c kubernetes.Interface) (watch.Interface, error) {
			return c.CoreV1().Pods("").Watch(watching, metav1.ListOptions{})
		},
	} {
		c, err := clientOf(o.kubeconfig)
		if err != nil {
			return err
		}
		w, err := begin(c)
		if err != nil {
			return err
		}
		watchers.Go(func() {
			defer w.Stop()
			if _, ok := <-w.ResultChan(); ok {
				there <- struct{}{}
			}
			for range w.ResultChan() { // until it is stopped
			}
		})
	}
	for range cap(there) {
		select {
		case <-there:
		case <-ctx.Done():
			return nil
		}
	}
	fmt.Println("watching")
	<-ctx.Done()
	return nil
}
