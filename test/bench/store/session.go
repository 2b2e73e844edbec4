package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// session is one contender's run of one cell, with its own folder.
type session struct {
	*bench
	cell
	who, dir string
	rep      int
}

// tasks are what is done in a cell, by its name.
var tasks = map[string]func(*session, context.Context) ([]phase, error){
	"writes": (*session).simple, "sustained": (*session).simple, "lists": (*session).simple, "watch": (*session).simple,
	"idle": (*session).idle, "open": (*session).open,
}

// task returns what a client of this session is told.
func (s *session) task(do string) task {
	t := task{
		Do: do, Target: filepath.Join(s.dir, "store.db"), Dir: s.dir, Size: s.size, Writers: s.writers,
		Seconds: s.bench.seconds, Gets: !s.slow, MayFail: s.who == kine,
	}
	if s.cell.seconds > 0 {
		t.Seconds = s.cell.seconds
	}
	if s.profile != "" && s.who == sublet {
		t.Profile = filepath.Join(s.profile, strings.ReplaceAll(s.String(), "/", "-")+fmt.Sprint(".", s.rep, ".pprof"))
	}
	return t
}

// simple runs one client against empty files.
func (s *session) simple(ctx context.Context) ([]phase, error) {
	t := s.task(s.cell.name)
	if s.who != sublet {
		server, err := s.start(ctx)
		if err != nil {
			return nil, err
		}
		defer server.stop()
		t.Target, t.Server = server.address, server.pid()
	}
	return s.run(ctx, t)
}

// idle measures the memory of what does nothing.
func (s *session) idle(ctx context.Context) ([]phase, error) {
	if s.who == sublet {
		t := s.task("fillStores")
		if _, err := s.run(ctx, t); err != nil {
			return nil, err
		}
		t.Do = "idle"
		return s.run(ctx, t)
	}
	server, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	t := s.task("fill")
	t.Target, t.Server, t.Objects = server.address, server.pid(), idleObjects
	if _, err := s.run(ctx, t); err != nil {
		return nil, err
	}
	if err := server.again(ctx); err != nil { // without what filling left behind
		return nil, err
	}
	value, err := anonymous(server.pid())
	return []phase{{Name: "idle", Value: value, Unit: "MiB"}}, err // of a whole process
}

// open measures a start on 1 GiB.
func (s *session) open(ctx context.Context) ([]phase, error) {
	if s.who == sublet {
		return s.run(ctx, s.task("open"))
	}
	server, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	t := s.task("fill")
	t.Target, t.Server, t.Objects = server.address, server.pid(), bigFile/s.size
	if _, err := s.run(ctx, t); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := server.again(ctx); err != nil {
		return nil, err
	}
	took := time.Since(began)
	size, err := sizeOf(s.dir)
	return []phase{{Name: "open", Value: took.Seconds(), Unit: "s"}, {Name: "open/size", Value: size, Unit: "MiB"}}, err
}

// patience is how long a task may take: one that hangs is a failed run.
const patience = 4 * time.Minute

// run has this program, started once more, do a task.
func (s *session) run(ctx context.Context, t task) ([]phase, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := s.command(ctx, self, clientRole)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("client: %w: %s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	var phases []phase
	return phases, json.Unmarshal(out.Bytes(), &phases)
}

// command is a process of this session: in slow cells under strace, which makes
// itself a grandchild, so that the process is ours.
func (s *session) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if s.slow {
		slow := fmt.Sprintf("inject=fdatasync,fsync:delay_exit=%d", s.delay.Microseconds())
		args = append([]string{"-D", "-f", "-q", "--seccomp-bpf", "-o", "/dev/null",
			"-e", "trace=fdatasync,fsync", "-e", "signal=none", "-e", slow, "--", name}, args...)
		name = "strace"
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.dir
	return cmd
}

// server is a peer at work.
type server struct {
	s       *session
	address string
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *os.File
}

// start starts the peer of this session and waits until it answers.
func (s *session) start(ctx context.Context) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	v := &server{s: s, address: l.Addr().String()}
	if v.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return nil, err
	}
	l.Close() // now the peer may have the port
	if err := v.launch(ctx); err != nil {
		v.stop()
		return nil, err
	}
	return v, nil
}

func (v *server) launch(ctx context.Context) error {
	program := filepath.Join(v.s.peers, v.s.who)
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("%w; make peers builds it", err)
	}
	v.cmd = v.s.command(ctx, program, arguments[v.s.who](v.s.dir, v.address)...)
	v.cmd.Stdout, v.cmd.Stderr = v.log, v.log
	if err := v.cmd.Start(); err != nil {
		return err
	}
	v.exited = make(chan struct{})
	go func() { v.cmd.Wait(); close(v.exited) }()
	return v.answers(ctx)
}

// arguments of the peers, who listen at an address and keep all in a folder.
var arguments = map[string]func(dir, address string) []string{
	etcd: func(dir, address string) []string {
		url, peer := "http://"+address, "http://127.0.0.1:0"
		return []string{"--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", peer, "--log-level", "error", "--quota-backend-bytes", fmt.Sprint(8 << 30)}
	},
	kine: func(dir, address string) []string {
		options := "_journal_mode=WAL&_busy_timeout=30000&_synchronous=FULL&_txlock=immediate&_stmt_cache_size=20&cache=shared"
		return []string{"--endpoint", "sqlite://" + filepath.Join(dir, "kine.db") + "?" + options,
			"--listen-address", address, "--metrics-bind-address", "0"}
	},
}

func (v *server) pid() int { return v.cmd.Process.Pid }

// answers waits until a read is answered.
func (v *server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{v.address}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		once, done := context.WithTimeout(ctx, time.Second)
		_, err := c.Get(once, objects+"ns-00/object-0000001")
		done()
		if err == nil {
			return nil
		}
		select {
		case <-v.exited:
			return fmt.Errorf("%s has ended: %s", v.s.who, v.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w: %s", v.s.who, err, v.lastWords())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (v *server) lastWords() string {
	data, err := os.ReadFile(v.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// again stops the server and starts it on the same files.
func (v *server) again(ctx context.Context) error {
	v.end()
	return v.launch(ctx)
}

func (v *server) end() {
	if v.exited == nil {
		return
	}
	v.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.exited:
	case <-time.After(20 * time.Second):
		v.cmd.Process.Kill()
		<-v.exited
	}
}

func (v *server) stop() {
	v.end()
	v.log.Close()
}
