package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/host-agent/sandbox"
)

const (
	// startLimit is how long containerd may take until it answers; a cold start
	// on a slow disk takes seconds.
	startLimit = time.Minute
	// stopLimit is how long it may take to end when asked.
	stopLimit = 15 * time.Second
	// restartPause is the least time between two starts.
	restartPause = time.Second
)

// Containerd is the node's containerd: a process of its own that goes on when the
// agent ends, so that pods do not notice.
type Containerd struct {
	layout  Layout
	machine Machine
	log     *slog.Logger
	groups  cgroups
	// current is the process between Start and Run; Run owns it then.
	current *process
}

// NewContainerd prepares the machine and writes containerd's configuration: the
// kernel's settings, the node's cgroup, its directories. Nothing runs yet.
func NewContainerd(l Layout, m Machine, log *slog.Logger) (*Containerd, error) {
	groups, err := findCgroups()
	if err != nil {
		return nil, err
	}
	if err := prepareDirs(l); err != nil {
		return nil, err
	}
	if err := setKernel(l); err != nil {
		return nil, err
	}
	// The kubelet wants its root to be there; containerd and its shims run in a
	// cgroup beside the pods', away from that of the agent.
	if err := groups.make(runtimeCgroup(l)); err != nil {
		return nil, err
	}
	c := &Containerd{layout: l, machine: m, log: log, groups: groups}
	if err := sandbox.WriteRunscConfig(c.runscConfig(), l.bin("runsc"), l.RunscRoot()); err != nil {
		return nil, err
	}
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	return c, writeFile(c.configFile(), config, 0o600)
}

func runtimeCgroup(l Layout) string { return l.Cgroup() + "/runtime" }

func (c *Containerd) configFile() string  { return filepath.Join(c.layout.Containerd(), "config.toml") }
func (c *Containerd) runscConfig() string { return filepath.Join(c.layout.Containerd(), "runsc.toml") }

// recordFile is where containerd is recorded.
func recordFile(l Layout) string { return filepath.Join(l.Data, "run", "containerd.json") }

// Start returns when containerd answers: the one that runs already, when it was
// started with the same binary and configuration, else a new one.
func (c *Containerd) Start(ctx context.Context) error {
	p, err := c.running(ctx)
	if err != nil {
		return err
	}
	if err := c.answer(ctx); err != nil {
		return errors.Join(err, p.close())
	}
	c.current = p
	return nil
}

// Run watches containerd, which Start has started, and starts it again whenever it
// dies; it returns nil when ctx ends, and containerd goes on.
func (c *Containerd) Run(ctx context.Context) error {
	for p := c.current; ; {
		if p == nil {
			var err error
			if p, err = c.running(ctx); err != nil {
				return err
			}
		}
		err := p.wait(ctx)
		_ = p.close() // nothing to be done about it, and nothing lost
		p = nil
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		c.log.Warn("containerd died: starting it again; containers go on", "log", c.layout.Log("containerd"))
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// running finds containerd or starts it.
func (c *Containerd) running(ctx context.Context) (*process, error) {
	build, err := c.build()
	if err != nil {
		return nil, err
	}
	p, err := find(recordFile(c.layout))
	switch {
	case errors.Is(err, errNotRunning):
		return c.launch(build)
	case err != nil:
		return nil, err
	case p.Build == build:
		c.log.Info("found containerd running", "pid", p.PID)
		return p, nil
	}
	c.log.Info("replacing containerd: its binary or configuration has changed", "pid", p.PID)
	stopping, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := errors.Join(p.stop(stopping), p.close()); err != nil {
		return nil, err
	}
	return c.launch(build)
}

// build tells one containerd from another: its binary and its configuration.
func (c *Containerd) build() (string, error) {
	config, err := os.ReadFile(c.configFile())
	if err != nil {
		return "", fmt.Errorf("read containerd's configuration: %w", err)
	}
	binary, err := os.Stat(c.layout.bin("containerd"))
	if err != nil {
		return "", fmt.Errorf("find containerd: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(config, "%d %d", binary.Size(), binary.ModTime().UnixNano()))
	return hex.EncodeToString(sum[:8]), nil
}

// launch starts a new containerd.
func (c *Containerd) launch(build string) (*process, error) {
	out, err := os.OpenFile(c.layout.Log("containerd"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open containerd's log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(c.layout.bin("containerd"), "--config", c.configFile())
	cmd.Dir = c.layout.Run()
	// containerd names files by paths without links, and so must what is compared to them.
	root, err := filepath.EvalSymlinks(c.layout.KubeletRoot())
	if err != nil {
		return nil, fmt.Errorf("find the kubelet's directory: %w", err)
	}
	// Shims are looked up beside containerd; the CNI plugins use the machine's tools.
	// gVisor's shim is told where pods' volumes are (deploy/shim).
	cmd.Env = append(os.Environ(), "SUBLET_PODS_DIR="+filepath.Join(root, "pods"), "PATH="+c.layout.Bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = out, out
	p, err := start(cmd, recordFile(c.layout), build, func(pid int) error { return c.groups.enter(runtimeCgroup(c.layout), pid) })
	if err != nil {
		return nil, err
	}
	c.log.Info("started containerd", "pid", p.PID, "log", c.layout.Log("containerd"))
	return p, nil
}

// answer waits until containerd's runtime service is ready.
func (c *Containerd) answer(ctx context.Context) error {
	conn, err := Dial(c.layout)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("containerd does not answer after %s: see %s", startLimit, c.layout.Log("containerd")))
	defer cancel()
	client := runtimev1.NewRuntimeServiceClient(conn)
	return poll(ctx, func() (bool, error) {
		_, err := client.Version(ctx, &runtimev1.VersionRequest{})
		return err == nil, nil
	})
}

// Dial returns a connection to containerd's CRI service, opened when it is first
// used. The caller closes it.
func Dial(l Layout) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+l.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return conn, nil
}

// config renders containerd's configuration.
func (c *Containerd) config() ([]byte, error) {
	var b bytes.Buffer
	err := containerdConfig.Execute(&b, map[string]any{
		"Root": filepath.Join(c.layout.Containerd(), "root"), "Run": c.layout.Run(), "Socket": c.layout.Socket(),
		"Pause": PauseImage, "Registries": c.layout.Registries(), "CNIBin": c.layout.CNIBin(), "CNIConf": c.layout.CNIConf(),
		"Runc": c.layout.bin("runc"), "RuncRoot": c.layout.RuncRoot(), "RunscConfig": c.runscConfig(),
		"RestrictOOM": !c.machine.SysResource, "DisableAppArmor": !c.machine.AppArmor,
	})
	if err != nil {
		return nil, fmt.Errorf("render containerd's configuration: %w", err)
	}
	return b.Bytes(), nil
}

// containerdConfig is containerd's configuration, format 4. Every path is below
// the node's own directories; the runtimes are the sandboxes and no others.
var containerdConfig = template.Must(template.New("containerd").Parse(`# Written by the agent at every start.
version = 4
root = {{printf "%q" .Root}}
state = "{{.Run}}/state"
temp = "{{.Root}}/tmp"
imports = []
disabled_plugins = [
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
]

[timeouts]
  # How long a shim may take to say how its task is, before exec, a probe by exec or an
  # update of resources fails for it. By default 2 s: on a machine whose processors are
  # taken away for seconds, that is little.
  "io.containerd.timeout.task.state" = "10s"

[plugins.'io.containerd.server.v1.grpc']
  address = {{printf "%q" .Socket}}
[plugins.'io.containerd.server.v1.ttrpc']
  address = "{{.Socket}}.ttrpc"
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = "{{.Run}}/s"
[plugins.'io.containerd.internal.v1.opt']
  path = "{{.Root}}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {{printf "%q" .Pause}}
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = {{printf "%q" .Registries}}

[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = {{.DisableAppArmor}}
  # Without CAP_SYS_RESOURCE a container's OOM score can only be raised.
  restrict_oom_score_adj = {{.RestrictOOM}}
  # Network namespaces go with the run directory, not to /run/netns.
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{{printf "%q" .CNIBin}}]
  conf_dir = {{printf "%q" .CNIConf}}
  use_internal_loopback = true

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = {{printf "%q" .Runc}}
  Root = {{printf "%q" .RuncRoot}}
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]
  runtime_type = "io.containerd.runsc.v1"
  # Hints of the agent's (host-agent/memvolumes), which lets no others through.
  pod_annotations = ["dev.gvisor.spec.mount.*"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc.options]
  TypeUrl = "io.containerd.runsc.v1.options"
  ConfigPath = {{printf "%q" .RunscConfig}}
`))
