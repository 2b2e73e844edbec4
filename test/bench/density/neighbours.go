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
	"runtime/trace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// quietRequests is how many requests the quiet tenant makes, one after another, in
	// each of the rounds.
	quietRequests = 501
	// rounds is how often the quiet tenant is measured, alone and beside the flood in
	// turns, so that a slow minute of the machine is in both.
	rounds = 5
	// floodClients is how many clients of its neighbour write and list without pause.
	floodClients = 16
	// calm is how long the cell rests after a flood: until garbage is collected again as
	// often as when there was none.
	calm = 3 * time.Second
)

// neighbours measures the requests of a quiet control plane: alone, and while
// another one of the same process is flooded. All clients are processes of their own.
func (w *ours) neighbours(ctx context.Context, traced string) error {
	if len(w.all) < 2 {
		return nil
	}
	var alone, beside []time.Duration
	var ratios, rates []float64
	for n := range rounds {
		if err := pause(ctx, calm); err != nil {
			return err
		}
		one, err := w.all[0].ask(ctx, w.dir)
		if err != nil {
			return err
		}
		file := traced
		if n < rounds-1 { // the flood has written all that it writes
			file = ""
		}
		two, rate, err := w.besideFlood(ctx, file)
		if err != nil {
			return err
		}
		alone, beside = append(alone, one...), append(beside, two...)
		ratios = append(ratios, float64(quantile(two, 0.99))/float64(quantile(one, 0.99)))
		rates = append(rates, rate)
	}
	percentiles("quiet/alone", alone)
	percentiles("quiet/beside-flood", beside)
	slices.Sort(ratios)
	figure("quiet/rounds/lowest-ratio", ratios[0], "")
	figure("quiet/rounds/highest-ratio", ratios[len(ratios)-1], "")
	slices.Sort(rates)
	figure("quiet/flood-rate", rates[len(rates)/2], "requests/s")
	return nil
}

// besideFlood measures the quiet control plane once while the flood is on, and how many
// requests of the flood were answered in a second.
func (w *ours) besideFlood(ctx context.Context, traced string) (times []time.Duration, rate float64, err error) {
	flood, err := w.all[1].clientProcess(ctx, w.dir, "flood")
	if err != nil {
		return nil, 0, err
	}
	out, err := flood.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := startAs(flood, unix.SCHED_IDLE); err != nil {
		return nil, 0, err
	}
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n') // all of them have had an answer
	begun := time.Now()
	if err == nil {
		err = tracing(traced, func() (err error) { times, err = w.all[0].ask(ctx, w.dir); return err })
	}
	took := time.Since(begun)
	err = errors.Join(err, flood.Process.Signal(os.Interrupt))
	var answered int
	if err == nil {
		_, err = fmt.Fscan(lines, &answered)
	}
	err = errors.Join(err, flood.Wait())
	return times, float64(answered) / took.Seconds(), err
}

// tracing runs do, and writes an execution trace of that to a file if there is to be one.
func tracing(path string, do func() error) error {
	if path == "" {
		return do()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := trace.Start(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = do()
	trace.Stop()
	return errors.Join(err, f.Close())
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
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startAs(c, unix.SCHED_FIFO); err != nil {
		return nil, err
	}
	err = json.NewDecoder(out).Decode(&times)
	return times, errors.Join(err, c.Wait())
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

// floodMain is the clients of its neighbour. It prints a line when each has had an
// answer, and how many they have had since when it is ended.
func floodMain(ctx context.Context, o options) error {
	var clients, begun sync.WaitGroup
	var answers atomic.Int64
	failures := make(chan error, floodClients)
	for n := range floodClients {
		c, err := clientOf(o.kubeconfig)
		if err != nil {
			return err
		}
		begun.Add(1)
		first := sync.OnceFunc(begun.Done)
		clients.Go(func() {
			defer first() // also if it fails
			failures <- flood(ctx, c, n, func() { answers.Add(1); first() })
		})
	}
	begun.Wait()
	before := answers.Load()
	fmt.Println("flooding")
	<-ctx.Done()
	fmt.Println(answers.Load() - before)
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

// flood writes and lists until ctx ends, and tells of each answer. That it is told to slow down
// is what should happen.
func flood(ctx context.Context, c kubernetes.Interface, client int, answered func()) error {
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	told := func(err error) error {
		if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsTooManyRequests(err) || apierrors.IsConflict(err) {
			answered()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for n := 0; ctx.Err() == nil; n++ {
		m := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("flood-%d-%d", client, n%200)},
			Data:       map[string]string{"x": string(make([]byte, 1024))},
		}
		_, err := maps.Create(ctx, m, metav1.CreateOptions{})
		exists := apierrors.IsAlreadyExists(err)
		err = told(err)
		if exists {
			_, again := maps.Update(ctx, m, metav1.UpdateOptions{})
			err = told(again)
		}
		if err == nil && n%10 == 0 {
			_, err = maps.List(ctx, metav1.ListOptions{})
			err = told(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
