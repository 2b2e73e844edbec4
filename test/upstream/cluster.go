package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/pki"
)

// Config says how a control plane runs. All but SecondServiceCIDR is required.
type Config struct {
	Bin string // the folder of the programs
	Dir string // a folder that nobody else uses, for data, credentials and logs
	// CA signs the API server's certificate.
	CA *pki.Authority
	// Clients signs those of its clients; nil: CA does.
	Clients *Authority
	// ServiceCIDR is the range of ClusterIPs.
	ServiceCIDR netip.Prefix
	// SecondServiceCIDR is a range of the other family; the zero value: there is none.
	SecondServiceCIDR netip.Prefix
}

// Cluster is a control plane. Make it with Start.
type Cluster struct {
	config    Config
	address   string // host:port of the API
	processes []*process
}

// loopback is where everything listens.
const loopback = "127.0.0.1"

// patience bounds how long a process may take until it answers: on a busy machine
// that starts it for the first time, most of a minute.
const patience = 3 * time.Minute

// Start starts storage and API server, and returns when the API answers. What runs is
// stopped when it fails.
func Start(ctx context.Context, c Config) (_ *Cluster, err error) {
	cluster := &Cluster{config: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, cluster.Stop())
		}
	}()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("upstream's control plane: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("upstream's control plane: %w", err)
	}
	cluster.address = net.JoinHostPort(loopback, fmt.Sprint(ports[2]))
	store := fmt.Sprintf("http://%s:%d", loopback, ports[0])
	if err := cluster.run("etcd", "--data-dir", filepath.Join(c.Dir, "etcd"), "--log-level", "warn",
		"--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", fmt.Sprintf("http://%s:%d", loopback, ports[1])); err != nil {
		return nil, err
	}
	flags, err := cluster.apiFlags(store, ports[2])
	if err != nil {
		return nil, err
	}
	if err := cluster.run("kube-apiserver", flags...); err != nil {
		return nil, err
	}
	return cluster, cluster.answers(ctx)
}

// apiFlags writes the API server's credentials, and returns its command line.
func (c *Cluster) apiFlags(store string, port int) ([]string, error) {
	f, err := c.writeCredentials()
	if err != nil {
		return nil, fmt.Errorf("credentials of kube-apiserver: %w", err)
	}
	return []string{
		"--etcd-servers", store, "--cert-dir", c.config.Dir,
		"--bind-address", loopback, "--secure-port", fmt.Sprint(port),
		"--advertise-address", "192.0.2.1", // RFC 5737: it refuses loopback ones
		"--tls-cert-file", f.servingCert, "--tls-private-key-file", f.servingKey, "--client-ca-file", f.clientCA,
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--service-cluster-ip-range", c.config.ranges(), "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", f.accountKey, "--service-account-signing-key-file", f.accountKey,
		"--kubelet-certificate-authority", c.config.CA.BundleFile(), "--kubelet-client-certificate", f.kubeletCert, "--kubelet-client-key", f.kubeletKey,
	}, nil
}

// ranges are those of ClusterIPs, as the API server takes them.
func (c Config) ranges() string {
	if !c.SecondServiceCIDR.IsValid() {
		return c.ServiceCIDR.String()
	}
	return c.ServiceCIDR.String() + "," + c.SecondServiceCIDR.String()
}

// StartControllers starts the controller manager.
func (c *Cluster) StartControllers(ctx context.Context) error {
	return c.startClient(ctx, "kube-controller-manager", "system:kube-controller-manager",
		"--use-service-account-credentials", "--service-account-private-key-file", c.file(accountKeyFile), "--root-ca-file", c.config.CA.BundleFile())
}

// StartScheduler starts the scheduler.
func (c *Cluster) StartScheduler(ctx context.Context) error {
	return c.startClient(ctx, "kube-scheduler", "system:kube-scheduler")
}

// startClient starts a component that needs nothing but the API. There is one of it, so
// it elects no leader.
func (c *Cluster) startClient(ctx context.Context, program, user string, flags ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	ports, err := freePorts(1)
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	kubeconfig, err := c.Kubeconfig(user)
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	file := c.file(program + ".kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	return c.run(program, append([]string{
		"--kubeconfig", file, "--secure-port", fmt.Sprint(ports[0]), "--bind-address", loopback, "--cert-dir", c.config.Dir, "--leader-elect=false",
	}, flags...)...)
}

// Address is host and port of the API.
func (c *Cluster) Address() string { return c.address }

// Client is a client configuration with a certificate that the cluster trusts.
func (c *Cluster) Client(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := c.issue(user, groups)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: "https://" + c.address, TLSClientConfig: rest.TLSClientConfig{CAData: c.config.CA.CAPEM(), CertData: cert, KeyData: key}}, nil
}

// Kubeconfig is Client as a file.
func (c *Cluster) Kubeconfig(user string, groups ...string) ([]byte, error) {
	cert, key, err := c.issue(user, groups)
	if err != nil {
		return nil, err
	}
	return pki.KubeconfigOptions{Server: "https://" + c.address, User: user}.Write(c.config.CA.CAPEM(), cert, key)
}

// issue makes a client's certificate.
func (c *Cluster) issue(user string, groups []string) (cert, key []byte, err error) {
	if c.config.Clients != nil {
		return c.config.Clients.issue(user, groups)
	}
	return c.config.CA.IssueClient(user, groups, pki.DefaultClientTTL)
}

// Admin is Client for somebody who may do everything.
func (c *Cluster) Admin() (*rest.Config, error) { return c.Client("admin", "system:masters") }

// PIDs are the ids of the processes that run.
func (c *Cluster) PIDs() []int {
	ids := make([]int, len(c.processes))
	for i, p := range c.processes {
		ids[i] = p.command.Process.Pid
	}
	return ids
}

// Stop kills all processes, the last one first, and waits for them.
func (c *Cluster) Stop() error {
	var errs []error
	for i := len(c.processes) - 1; i >= 0; i-- {
		errs = append(errs, c.processes[i].stop())
	}
	c.processes = nil
	return errors.Join(errs...)
}

// answers waits for the first answer of the API, as long as its processes live.
func (c *Cluster) answers(ctx context.Context) error {
	config, err := c.Admin()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		for _, p := range c.processes {
			if err := p.lives(); err != nil {
				return false, err
			}
		}
		if _, last = client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{}); last == nil {
			// The other components end when their rights are not there yet.
			_, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		}
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the API server in %s does not answer: %w (%w)", c.config.Dir, err, last)
	}
	return nil
}
