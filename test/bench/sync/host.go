package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/test/upstream"
)

var hostServices = netip.MustParsePrefix("10.96.0.0/12")

// cellName names the cell of the tenants.
const cellName = "cell-0"

// hosting is what the host's process says when it is ready.
type hosting struct {
	Admin, Cell []byte // kubeconfigs
	PIDs        []int  // of the control plane and its kubelets
}

// controlPlane is a host's that runs.
type controlPlane struct {
	pids       []int // of its processes, if they are not this one
	kubeconfig func(user string, groups ...string) ([]byte, error)
	stop       func() error
}

// hostMain is the child that runs the host and its kubelets, until its standard input
// ends.
func hostMain(ctx context.Context, o options) (err error) {
	ca, err := pki.LoadOrCreate(filepath.Join(o.dir, "pki"), "host")
	if err != nil {
		return err
	}
	begin := startOurs
	if o.host == "upstream" {
		begin = startUpstream
	}
	h, err := begin(ctx, o, ca)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	says := hosting{PIDs: append(h.pids, os.Getpid())}
	if says.Admin, err = h.kubeconfig("admin", "system:masters"); err != nil {
		return err
	}
	if says.Cell, err = h.kubeconfig(tenant.CellUser(cellName)); err != nil {
		return err
	}
	config, err := hostClient(says.Admin)
	if err != nil {
		return err
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	kubelets, err := startKubelets(ctx, api, o.nodes)
	if err != nil {
		return err
	}
	defer kubelets.stop()
	if err := json.NewEncoder(os.Stdout).Encode(says); err != nil {
		return err
	}
	return profileAsTold(os.Stdin)
}

// profileAsTold profiles this process: each line names the file of a profile that
// begins, an empty one ends it.
func profileAsTold(in io.Reader) error {
	var file *os.File
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if file != nil {
			pprof.StopCPUProfile()
			if err := file.Close(); err != nil {
				return err
			}
			file = nil
		}
		if lines.Text() == "" {
			continue
		}
		var err error
		if file, err = os.Create(lines.Text()); err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return nil
}

// startOurs starts our control plane of a host, with upstream's scheduler in it, which
// has no limit of requests of its own.
func startOurs(ctx context.Context, o options, ca *pki.Authority) (*controlPlane, error) {
	s, err := server.Start(ctx, server.Config{
		Name: "host", PKI: ca, StorePath: filepath.Join(o.dir, "store.db"), GoldenDir: filepath.Join(o.dir, "golden"), Logger: slog.New(slog.DiscardHandler),
		ServiceCIDR: hostServices, Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")},
	})
	if err != nil {
		return nil, err
	}
	address, served, err := serve(ctx, s)
	if err != nil {
		return nil, errors.Join(err, stopServer(s))
	}
	return &controlPlane{
		kubeconfig: func(user string, groups ...string) ([]byte, error) {
			return ca.Kubeconfig(pki.KubeconfigOptions{Server: "https://" + address, User: user, Groups: groups})
		},
		stop: func() error { return errors.Join(stopServer(s), <-served) },
	}, nil
}

// serve has a control plane answer on loopback, until it is stopped.
func serve(ctx context.Context, s *server.Server) (address string, served <-chan error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.WithoutCancel(ctx), l) }()
	return l.Addr().String(), ended, nil
}

func stopServer(s *server.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.Stop(ctx)
}

// startUpstream starts upstream's processes as upstream ships them: its scheduler
// limits itself to 50 requests a second. Their clients' certificates are such as kubeadm
// makes.
func startUpstream(ctx context.Context, o options, ca *pki.Authority) (*controlPlane, error) {
	clients, err := upstream.NewAuthority()
	if err != nil {
		return nil, err
	}
	c, err := upstream.Start(ctx, upstream.Config{Bin: o.bin, Dir: filepath.Join(o.dir, "upstream"), CA: ca, Clients: clients, ServiceCIDR: hostServices})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.StartControllers(ctx), c.StartScheduler(ctx)); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return &controlPlane{pids: c.PIDs(), kubeconfig: c.Kubeconfig, stop: c.Stop}, nil
}

// startHost runs the host as a child, and waits until it is ready.
func (w *world) startHost(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, "host")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c := exec.Command(self, append(os.Args[1:], "-child", "host", "-dir", dir)...)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	w.tellHost = in
	w.stopHost = func() error { return errors.Join(in.Close(), c.Wait()) }
	said := make(chan error, 1)
	go func() { said <- json.NewDecoder(bufio.NewReader(out)).Decode(&w.hosting) }()
	select {
	case err = <-said:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the host did not start: %w", err)
	}
	return nil
}

// hostClient is a client configuration as kubelets and cells have it.
func hostClient(kubeconfig []byte) (*rest.Config, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	return config, nil
}
