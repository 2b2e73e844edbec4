package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// quietRequests is how many requests the quiet tenant makes, one after another.
	quietRequests = 500
	// floodClients is how many clients of its neighbour write and list without pause.
	floodClients = 16
)

// niceness is that of flooding clients: they are to use what the cell leaves, since
// what is measured is the cell and not how a small machine is shared with them.
const niceness = 19

// neighbours measures the requests of a quiet control plane: alone, and while
// another one of the same process is flooded. All clients are processes of their own.
func (w *ours) neighbours(ctx context.Context) error {
	if len(w.all) < 2 {
		return nil
	}
	alone, err := w.all[0].ask(ctx, w.dir)
	if err != nil {
		return err
	}
	flood, err := w.all[1].clientProcess(ctx, w.dir, "flood")
	if err != nil {
		return err
	}
	lines, err := flood.StdoutPipe()
	if err != nil {
		return err
	}
	if err := flood.Start(); err != nil {
		return err
	}
	_, err = bufio.NewReader(lines).ReadString('\n') // it has begun
	var beside []time.Duration
	if err == nil {
		beside, err = w.all[0].ask(ctx, w.dir)
	}
	err = errors.Join(err, flood.Process.Signal(os.Interrupt), flood.Wait())
	if err != nil {
		return err
	}
	percentiles("quiet/alone", alone)
	percentiles("quiet/beside-flood", beside)
	return nil
}

// clientProcess is this program as clients of the control plane; it is not started.
func (p *plane) clientProcess(ctx context.Context, dir, child string) (*exec.Cmd, error) {
	kubeconfig, err := p.kubeconfig()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, child+".kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return nil, err
	}
	return childProcess(ctx, child, file)
}

// childProcess is this program as clients with a kubeconfig; it is not started.
func childProcess(ctx context.Context, child, kubeconfig string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, self, "-child", child, "-kubeconfig", kubeconfig)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.Stderr = os.Stderr
	return c, nil
}

// ask has a process ask, and returns how long each request took.
func (p *plane) ask(ctx context.Context, dir string) (times []time.Duration, err error) {
	c, err := p.clientProcess(ctx, dir, "ask")
	if err != nil {
		return nil, err
	}
	out, err := c.Output()
	if err != nil {
		return nil, err
	}
	return times, json.Unmarshal(out, &times)
}

// askMain is the quiet tenant's client.
func askMain(ctx context.Context, o options) error {
	c, err := clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	times, err := ask(ctx, c, fmt.Sprintf("quiet-%d", os.Getpid()))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(times)
}

// floodMain is the clients of its neighbour. It prints a line when they have begun.
func floodMain(ctx context.Context, o options) error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness); err != nil {
		return err
	}
	var clients sync.WaitGroup
	failures := make(chan error, floodClients)
	for n := range floodClients {
		c, err := clientOf(o.kubeconfig)
		if err != nil {
			return err
		}
		clients.Go(func() { failures <- flood(ctx, c, n) })
	}
	fmt.Println("flooding")
	clients.Wait()
	close(failures)
	var err error
	for f := range failures {
		err = errors.Join(err, f)
	}
	return err
}

// clientOf makes a client with a connection of its own.
func clientOf(file string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, err
	}
	c, _, err := clientFor(config)
	return c, err
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

// flood writes and lists until ctx ends. That it is told to slow down is what should
// happen.
func flood(ctx context.Context, c kubernetes.Interface, client int) error {
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
