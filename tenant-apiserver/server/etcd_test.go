package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/store"
)

// etcd is a real one, of processes of its own, that speaks TLS.
type etcd struct {
	endpoints []string
	members   []*exec.Cmd
	tls       *tls.Config
}

// startEtcd starts a cluster that ends with the test.
func startEtcd(t *testing.T, n int) *etcd {
	t.Helper()
	program, err := filepath.Abs("../../bin/peers/etcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no etcd to test with: run `make peers`")
	}
	dir := t.TempDir()
	host := ownLoopback()
	e := &etcd{tls: etcdCertificates(t, dir, host)}
	at := freeAddresses(t, host, 2*n)
	var cluster []string
	for i := range n {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, at[n+i]))
		e.endpoints = append(e.endpoints, "https://"+at[i])
	}
	for i := range n {
		peer := strings.SplitN(cluster[i], "=", 2)[1]
		cmd := exec.Command(program, "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("m%d", i)),
			"--listen-client-urls", e.endpoints[i], "--advertise-client-urls", e.endpoints[i],
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--log-level", "error",
			"--cert-file", filepath.Join(dir, "tls.crt"), "--key-file", filepath.Join(dir, "tls.key"),
			"--heartbeat-interval", "100", "--election-timeout", "2000") // a stall is no death
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // some were killed before
			_ = cmd.Wait()
		})
		e.members = append(e.members, cmd)
	}
	return e
}

// etcdCertificates writes a serving certificate, and returns what trusts it.
func etcdCertificates(t *testing.T, dir string, host netip.Addr) *tls.Config {
	t.Helper()
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "etcd")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueServing(nil, []netip.Addr{host}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, data := range map[string][]byte{"tls.crt": chain.Bytes(), "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CAPEM())
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// ownLoopback is an address of this machine at which nobody else listens, and that nobody
// connects from: what is free there stays free.
func ownLoopback() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(254)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
}

func freeAddresses(t *testing.T, host netip.Addr, n int) []string {
	t.Helper()
	var at []string
	for range n {
		l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at = append(at, l.Addr().String())
	}
	return at
}

// as is a client of the whole etcd.
func (e *etcd) as(t *testing.T, user string) *clientv3.Client {
	t.Helper()
	password := ""
	if user != "" {
		password = "of-" + user
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: e.endpoints, TLS: e.tls, DialTimeout: 20 * time.Second, Username: user, Password: password, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // members may be gone
	return c
}

// on is the configuration of a tenant on the etcd.
func (e *etcd) on(t *testing.T, name string, i int) Config {
	t.Helper()
	c := scratch(t, name, i)
	c.StorePath, c.ID = "", "uid-"+name
	c.KeyFile = filepath.Join(t.TempDir(), "keys.json")
	c.Etcd = &etcdclient.EtcdConfig{Endpoints: e.endpoints, Prefix: "/tenants/" + name + "/", TLS: e.tls}
	return c
}

func TestTenantOnEtcdOutlivesAMember(t *testing.T) {
	e := startEtcd(t, 3)
	c := e.on(t, "ha", 40)
	s := start(t, c)
	fill(t, s)
	k := client(t, s.Loopback())
	var written sync.Map
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	counts := make(chan int, 1000)
	for i := range 4 {
		writers.Go(func() { createMany(ctx, t, k, i, &written, counts) })
	}
	wantMore := func(n int) {
		for range n {
			select {
			case <-counts:
			case <-t.Context().Done():
				t.Fatal("no more writes")
			}
		}
	}
	wantMore(50)
	e.killLeader(t)
	for len(counts) > 0 {
		<-counts
	}
	wantMore(200)
	cancel()
	writers.Wait()
	wantAll(t, k, &written)
	wantFilled(t, s)
	stop(t, s)
	c.Existing = true
	s = start(t, c) // with two members
	wantAll(t, client(t, s.Loopback()), &written)
	wantFilled(t, s)
	stop(t, s)
	e.wantEncrypted(t, c)
}

// createMany creates objects until ctx ends, and notes those that were acknowledged.
func createMany(ctx context.Context, t *testing.T, k kubernetes.Interface, writer int, written *sync.Map, counts chan int) {
	for i := 0; ctx.Err() == nil; i++ {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%d-%d", writer, i)}, Data: map[string]string{"x": known}}
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		_, err := k.CoreV1().ConfigMaps("default").Create(attempt, cm, metav1.CreateOptions{})
		stop()
		if err != nil {
			continue // it may or may not be there; nobody promised
		}
		written.Store(cm.Name, true)
		select {
		case counts <- 1:
		default:
		}
	}
}

// killLeader kills the member that all writes go through.
func (e *etcd) killLeader(t *testing.T) {
	t.Helper()
	c := e.as(t, "")
	await(t, "a leader", func(ctx context.Context) (bool, error) { // another may be elected meanwhile
		for i, endpoint := range e.endpoints {
			s, err := c.Status(ctx, endpoint)
			if err != nil {
				return false, err
			}
			if s.Leader == s.Header.MemberId {
				return true, e.members[i].Process.Kill()
			}
		}
		return false, nil
	})
}

func wantAll(t *testing.T, k kubernetes.Interface, written *sync.Map) {
	t.Helper()
	there := map[string]bool{}
	await(t, "list", func(ctx context.Context) (bool, error) {
		list, err := k.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, nil // the connection may be moving
		}
		for _, cm := range list.Items {
			there[cm.Name] = true
		}
		return true, nil
	})
	n := 0
	written.Range(func(name, _ any) bool {
		n++
		if !there[name.(string)] {
			t.Errorf("%s was acknowledged and is lost", name)
		}
		return true
	})
	t.Logf("%d acknowledged, %d there", n, len(there))
}

// wantEncrypted wants every value below the prefix encrypted, and no key outside.
func (e *etcd) wantEncrypted(t *testing.T, c Config) {
	t.Helper()
	all, err := e.as(t, "").Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Kvs) < 200 {
		t.Errorf("only %d keys", len(all.Kvs))
	}
	for _, kv := range all.Kvs {
		key, ok := strings.CutPrefix(string(kv.Key), c.Etcd.Prefix)
		if !ok {
			t.Errorf("%s is outside of the prefix", kv.Key)
		}
		if key != IDKey && key != "compact_rev_key" && !keyring.IsEncrypted(kv.Value) {
			t.Errorf("%s is not encrypted", kv.Key)
		}
	}
}

func TestPartOfAnEtcdBelongsToOneTenant(t *testing.T) {
	e := startEtcd(t, 1)
	c, neighbour := e.on(t, "one", 41), e.on(t, "one2", 42)
	c.Existing = true
	if s, err := Start(t.Context(), c); !errors.Is(err, ErrStoreMissing) {
		if err == nil {
			stop(t, s)
		}
		t.Errorf("a tenant that ran before, on an empty etcd: %v", err)
	}
	c.Existing = false
	stop(t, start(t, c))
	stop(t, start(t, neighbour))
	other := c
	other.ID = "uid-other"
	if _, err := Start(t.Context(), other); !errors.Is(err, store.ErrForeign) {
		t.Errorf("another tenant's part: %v", err)
	}
	raw := e.as(t, "")
	if _, err := raw.Put(t.Context(), "/somebody/elses", "x"); err != nil {
		t.Fatal(err)
	}
	foreign := e.on(t, "foreign", 43)
	foreign.Etcd.Prefix = "/somebody/"
	if _, err := Start(t.Context(), foreign); !errors.Is(err, store.ErrForeign) {
		t.Errorf("keys of another program: %v", err)
	}
	before := countKeys(t, raw, neighbour.Etcd.Prefix)
	if err := RemoveEtcd(t.Context(), *c.Etcd, "uid-other"); err != nil {
		t.Fatal(err)
	}
	if countKeys(t, raw, c.Etcd.Prefix) == 0 {
		t.Error("one tenant's keys were removed for another")
	}
	if err := RemoveEtcd(t.Context(), *c.Etcd, c.ID); err != nil {
		t.Fatal(err)
	}
	if n := countKeys(t, raw, c.Etcd.Prefix); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	if n := countKeys(t, raw, neighbour.Etcd.Prefix); n != before || n < 180 {
		t.Errorf("the neighbour has %d keys, had %d", n, before)
	}
}

func countKeys(t *testing.T, c *clientv3.Client, prefix string) int64 {
	t.Helper()
	r, err := c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return r.Count
}

// Two tenants of one etcd have a user each, with rights to their own prefix.
func TestTenantsOfOneEtcdCannotReadEachOther(t *testing.T) {
	e := startEtcd(t, 1)
	a, b := e.on(t, "a", 44), e.on(t, "b", 45)
	e.enableAuth(t, a, b)
	sa, sb := start(t, a), start(t, b)
	fill(t, sa)
	for user, c := range map[string]Config{"a": b, "b": a} {
		if _, err := e.as(t, user).Get(t.Context(), c.Etcd.Prefix, clientv3.WithPrefix()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s reads %s: %v", user, c.Etcd.Prefix, err)
		}
		if _, err := e.as(t, user).Put(t.Context(), c.Etcd.Prefix+"x", ""); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("%s writes below %s: %v", user, c.Etcd.Prefix, err)
		}
		if n := countKeys(t, e.as(t, c.Etcd.Username), c.Etcd.Prefix); n < 180 { // the control
			t.Errorf("%s has %d keys", c.Etcd.Username, n)
		}
		intruder := *c.Etcd
		intruder.Username, intruder.Password = user, "of-"+user
		if _, err := etcdclient.DialEtcd(t.Context(), intruder); !errors.Is(err, etcdclient.ErrDenied) {
			t.Errorf("%s connects to %s: %v", user, c.Etcd.Prefix, err)
		}
	}
	wrong := *a.Etcd
	wrong.Password = "wrong"
	if _, err := etcdclient.DialEtcd(t.Context(), wrong); !errors.Is(err, etcdclient.ErrDenied) {
		t.Errorf("with a wrong password: %v", err)
	}
	// An etcd lets only root compact it; upstream's compactor takes no harm from that.
	if err := compact(t.Context(), sa); err != nil {
		t.Errorf("compaction: %v", err)
	}
	if _, err := client(t, sb.Loopback()).CoreV1().Secrets("default").Get(t.Context(), "plan", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("b's API finds a's secret: %v", err)
	}
	wantFilled(t, sa)
	stop(t, sa)
	stop(t, sb)
}

// enableAuth makes root, and a user for each tenant, as docs/operators.md says.
func (e *etcd) enableAuth(t *testing.T, tenants ...Config) {
	t.Helper()
	c, ctx := e.as(t, ""), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tenant := range tenants {
		end := clientv3.GetPrefixRangeEnd(tenant.Etcd.Prefix)
		name := tenant.Name
		must(c.RoleAdd(ctx, name))
		must(c.RoleGrantPermission(ctx, name, tenant.Etcd.Prefix, end, clientv3.PermissionType(clientv3.PermReadWrite)))
		must(c.UserAdd(ctx, name, "of-"+name))
		must(c.UserGrantRole(ctx, name, name))
		tenant.Etcd.Username, tenant.Etcd.Password = name, "of-"+name
	}
	must(c.RoleAdd(ctx, "root"))
	must(c.UserAdd(ctx, "root", "of-root"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.AuthEnable(ctx))
}

func TestEtcdThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	nobody := etcdclient.EtcdConfig{Endpoints: []string{"http://" + freeAddresses(t, ownLoopback(), 1)[0]}, Prefix: "/a/"}
	if _, err := etcdclient.DialEtcd(ctx, nobody); !errors.Is(err, etcdclient.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	nobody.Endpoints = []string{"bbolt://x"}
	if _, err := etcdclient.DialEtcd(ctx, nobody); err == nil {
		t.Error("an endpoint that is no URL of an etcd")
	}
}
