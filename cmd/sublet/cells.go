package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/cmd/sublet/internal/supervise"
	"sublet.dev/isolation/baseline"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/server"
)

// cellNames returns the cells that have left a process record in the data directory,
// whether they run or not.
func (d dataDir) cellNames() ([]string, error) {
	entries, err := os.ReadDir(d.path("run"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for cells: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".pid"); ok && isCell(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// isCell says whether a process of that name is a cell: cell-0, cell-1 and so on.
func isCell(name string) bool {
	number, ok := strings.CutPrefix(name, "cell-")
	n, err := strconv.ParseUint(number, 10, 16)
	return ok && err == nil && number == strconv.FormatUint(n, 10)
}

// cellKeeper keeps cells running, as the manager asks: see manager.Cells.
type cellKeeper struct {
	*hostServer
	api         client.Client
	credentials credentials
	build       string
	argv        func(name string) []string
	life        context.Context // has ended once the server stops
	stopping    context.CancelFunc

	mu      sync.Mutex
	running map[string]*keptCell // guarded by mu
}

// keptCell is a cell that is kept running.
type keptCell struct {
	client *cell.Client
	cancel context.CancelFunc
	done   chan error // gets one value, when the process has ended
}

func (s *hostServer) newCells(ctx context.Context, api *server.Server, c credentials) (*cellKeeper, error) {
	host, err := newHostClient(api.Loopback())
	if err != nil {
		return nil, err
	}
	self, err := executable()
	if err != nil {
		return nil, err
	}
	build, err := supervise.Build()
	if err != nil {
		return nil, err
	}
	k := &cellKeeper{hostServer: s, api: host, credentials: c, build: build, running: map[string]*keptCell{}}
	k.argv = func(name string) []string {
		argv := append([]string{self, "cell", "--name=" + name, "--data-dir=" + string(s.dir), "--renew=" + s.host.renewCells.String()}, s.logs.args()...)
		return append(append(argv, kmsArgs(s.host.kmsSocket)...), auditWebhookArgs(s.host.auditWebhook)...)
	}
	k.life, k.stopping = context.WithCancel(context.WithoutCancel(ctx))
	return k, nil
}

// run waits for ctx to end and then stops all cells.
func (k *cellKeeper) run(ctx context.Context) error {
	<-ctx.Done()
	k.stopping()
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for name, c := range k.running {
		if err := c.end(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// end waits until the process, which was told to, has ended.
func (c *keptCell) end() error {
	c.cancel()
	err := <-c.done
	c.client.Close()
	return err
}

// Start implements manager.Cells. A cell that an earlier server started is adopted.
func (k *cellKeeper) Start(ctx context.Context, name string) (manager.Cell, error) {
	if !isCell(name) {
		return nil, fmt.Errorf("%q is not the name of a cell", name)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.running[name]; c != nil {
		return c.client, nil
	}
	if k.life.Err() != nil {
		return nil, errors.New("the server is stopping")
	}
	for _, o := range baseline.Cell(name) {
		if err := manager.Apply(ctx, k.api, o); err != nil {
			return nil, err
		}
	}
	if err := k.credentials.writeCell(name); err != nil {
		return nil, err
	}
	c := &keptCell{client: cell.NewClient(k.dir.cellSocket(name)), done: make(chan error, 1)}
	spec := supervise.Spec{Slot: k.dir.slot(name), Build: k.build, Argv: k.argv(name), Log: k.dir.log(name), Grace: cellGrace, Logger: k.log}
	life, cancel := context.WithCancel(k.life)
	c.cancel = cancel
	go func() { c.done <- supervise.Run(life, spec) }()
	k.running[name] = c
	return c.client, nil
}

// Stop implements manager.Cells: the process ends, and its rights with it.
func (k *cellKeeper) Stop(ctx context.Context, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.running[name]; c != nil {
		delete(k.running, name)
		if err := c.end(); err != nil {
			return err
		}
	}
	return k.clear(ctx, name)
}

// clear removes what a cell that has ended leaves: its rights, credentials, socket.
func (k *cellKeeper) clear(ctx context.Context, name string) error {
	for _, o := range slices.Backward(baseline.Cell(name)) {
		if !strings.HasSuffix(o.GetName(), name) {
			continue // all cells'
		}
		if err := k.api.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete host object %s: %w", o.GetName(), err)
		}
	}
	var errs []error
	for _, path := range []string{k.dir.cellConfig(name), k.dir.cellSocket(name), k.dir.slot(name).Record} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove what a cell left: %w", err))
		}
	}
	return errors.Join(errs...)
}

// stopOthers stops the cells that run though nobody asked for them: they were left
// by a server that was killed in between.
func (k *cellKeeper) stopOthers(ctx context.Context) error {
	names, err := k.dir.cellNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		k.mu.Lock()
		kept := k.running[name] != nil
		k.mu.Unlock()
		if kept {
			continue
		}
		if err := stopHolder(k.dir.slot(name), cellGrace, k.log); err != nil {
			return err
		}
		if err := k.clear(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
