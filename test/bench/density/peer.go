package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// token is that of the administrator of a peer's control plane.
const token = "benchmark"

// peer is a control plane in three processes.
type peer struct {
	dir       string
	etcd, api int // ports
	processes []*exec.Cmd
}

// peerMain is the child that measures upstream's processes.
func peerMain(ctx context.Context, o options) (err error) {
	var all []*peer
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.stop())
		}
	}()
	var times []time.Duration
	for _, n := range o.peers {
		for len(all) < n {
			start := time.Now()
			p := &peer{dir: filepath.Join(o.dir, fmt.Sprintf("p%d", len(all)+1))}
			all = append(all, p)
			if err := p.start(ctx, o.bin); err != nil {
				return err
			}
			times = append(times, time.Since(start))
			if err := p.startControllers(ctx, o.bin); err != nil {
				return err
			}
		}
		if err := measurePeers(ctx, all, o.window); err != nil {
			return err
		}
	}
	figure("create/first-answer/p50", milliseconds(quantile(times, 0.5)), "ms")
	return nil
}

func measurePeers(ctx context.Context, all []*peer, window time.Duration) error {
	var pids []int
	for _, p := range all {
		for _, c := range p.processes {
			pids = append(pids, c.Process.Pid)
		}
	}
	if err := pause(ctx, 2*window); err != nil { // they take longer to settle
		return err
	}
	before, err := usageOf(pids...)
	if err != nil {
		return err
	}
	if err := pause(ctx, window); err != nil {
		return err
	}
	after, err := usageOf(pids...)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/%d", len(all))
	figure("total/natural"+name, after.Natural, "MiB")
	figure("total/pss"+name, after.PSS, "MiB")
	figure("total/anon"+name, after.Anon, "MiB")
	figure("total/idle-cpu"+name, milliseconds(after.CPU-before.CPU)/window.Seconds(), "mCPU")
	return nil
}

// start starts storage and API server, and waits for the first answer.
func (p *peer) start(ctx context.Context, bin string) error {
	if err := p.prepare(); err != nil {
		return err
	}
	client := fmt.Sprintf("http://127.0.0.1:%d", p.etcd)
	peers, err := freePort()
	if err != nil {
		return err
	}
	if err := p.run(bin, "etcd", "--data-dir", filepath.Join(p.dir, "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peers)); err != nil {
		return err
	}
	key := filepath.Join(p.dir, "sa.key")
	if err := p.run(bin, "kube-apiserver", "--etcd-servers", client, "--cert-dir", filepath.Join(p.dir, "certs"),
		"--secure-port", fmt.Sprint(p.api), "--bind-address", "127.0.0.1", "--advertise-address", "192.0.2.1", // RFC 5737: it refuses loopback ones
		"--token-auth-file", filepath.Join(p.dir, "tokens.csv"), "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key); err != nil {
		return err
	}
	return p.answers(ctx)
}

// startControllers starts the controller manager.
func (p *peer) startControllers(ctx context.Context, bin string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: p.config().Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["c"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	config.CurrentContext = "c"
	file := filepath.Join(p.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	return p.run(bin, "kube-controller-manager", "--kubeconfig", file, "--secure-port", fmt.Sprint(port), "--bind-address", "127.0.0.1",
		"--cert-dir", filepath.Join(p.dir, "certs"), "--leader-elect=false", "--use-service-account-credentials",
		"--service-account-private-key-file", filepath.Join(p.dir, "sa.key"))
}

// prepare makes the peer's files and chooses its ports.
func (p *peer) prepare() (err error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if p.etcd, err = freePort(); err != nil {
		return err
	}
	if p.api, err = freePort(); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(p.dir, "sa.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(p.dir, "tokens.csv"), []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600))
}

// run starts a process whose output goes to a file.
func (p *peer) run(bin, name string, args ...string) error {
	out, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return err
	}
	defer out.Close()
	c := exec.Command(filepath.Join(bin, name), args...)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		return fmt.Errorf("%w; make peers builds it", err)
	}
	p.processes = append(p.processes, c)
	return nil
}

func (p *peer) config() *rest.Config {
	return &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", p.api), BearerToken: token,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}
}

func (p *peer) answers(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(p.config())
	if err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, last = client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the API server in %s does not answer: %w (%w)", p.dir, err, last)
	}
	return nil
}

func (p *peer) stop() error {
	var errs []error
	for _, c := range p.processes {
		errs = append(errs, c.Process.Kill())
		if err := c.Wait(); err != nil && c.ProcessState == nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
