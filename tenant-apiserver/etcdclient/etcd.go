package etcdclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	utilversion "k8s.io/apimachinery/pkg/util/version"
)

const (
	// askTimeout bounds the first questions: somebody waits for the answer.
	askTimeout = 6 * time.Second
	// dialTimeout bounds a connection; keep-alives find members that are gone. The
	// values are upstream's.
	dialTimeout      = 20 * time.Second
	keepAlive        = 30 * time.Second
	keepAliveTimeout = 10 * time.Second
)

// oldestEtcd answers progress requests of watches, which Install promises upstream
// for the whole process.
var oldestEtcd = utilversion.MustParseGeneric("3.5.13")

var (
	// ErrUnavailable is wrapped when no member of an etcd answers.
	ErrUnavailable = errors.New("the etcd does not answer")
	// ErrDenied is wrapped when an etcd refuses the credentials, or they have no
	// right to the prefix.
	ErrDenied = errors.New("the etcd refuses the tenant's credentials")
)

// EtcdConfig describes a part of an etcd.
type EtcdConfig struct {
	// Endpoints are the client URLs of the members, http or https.
	Endpoints []string
	// Prefix begins all keys; it starts and ends with a slash.
	Prefix string
	// TLS is for https endpoints; nil: the host's authorities, no certificate.
	TLS *tls.Config
	// Username and Password are those of an etcd user; empty: none.
	Username, Password string
	// Dial makes the connections. Nil: a dialer of the machine.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (c EtcdConfig) validate() error {
	if !allEtcd(c.Endpoints) {
		return fmt.Errorf("the endpoints %q are no http or https URLs", strings.Join(c.Endpoints, ","))
	}
	if len(c.Prefix) < 2 || c.Prefix[0] != '/' || c.Prefix[len(c.Prefix)-1] != '/' {
		return fmt.Errorf("the prefix %q does not start and end with a slash", c.Prefix)
	}
	return nil
}

// Etcd is a connection to a part of an etcd. Its methods are safe for concurrent
// use.
type Etcd struct {
	config EtcdConfig
	client *clientv3.Client
	end    context.CancelFunc // of the client's life
}

// DialEtcd connects, and finds out whether the members that answer are new enough
// and let the tenant read its part. ctx bounds that. Errors wrap ErrUnavailable or
// ErrDenied where that is what they are.
func DialEtcd(ctx context.Context, c EtcdConfig) (*Etcd, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// The client asks for a token while it is made, and then heeds only its own life.
	stop := context.AfterFunc(ctx, end)
	defer stop()
	client, err := clientv3.New(c.client(life))
	if err == nil {
		e := &Etcd{config: c, client: client, end: end}
		if err = e.check(ctx); err == nil && stop() {
			return e, nil
		}
		err = errors.Join(err, ctx.Err(), e.Close())
	} else if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	end()
	return nil, fmt.Errorf("connect to etcd %s: %w", strings.Join(c.Endpoints, ","), explain(err))
}

// client returns the configuration of a client that lives as long as life.
func (c EtcdConfig) client(life context.Context) clientv3.Config {
	config := clientv3.Config{
		Context:     life,
		Endpoints:   c.Endpoints,
		TLS:         c.TLS,
		Username:    c.Username,
		Password:    c.Password,
		DialTimeout: dialTimeout, DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAliveTimeout,
		Logger: zap.NewNop(), // what fails is returned, and tried again by who asked
	}
	if c.Dial != nil {
		config.DialOptions = append(config.DialOptions, grpc.WithContextDialer(c.Dial))
	}
	return config
}

// check wants one member at least, none that is too old, and the right to read.
func (e *Etcd) check(ctx context.Context) error {
	if _, err := e.client.KV.Get(ctx, e.config.Prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil {
		return fmt.Errorf("count the keys of %s: %w", e.config.Prefix, err)
	}
	for _, member := range e.config.Endpoints {
		s, err := e.status(ctx, member)
		if err != nil {
			continue // it may be down; the one that was asked above was not
		}
		v, err := utilversion.ParseGeneric(s.Version)
		if err != nil || v.LessThan(oldestEtcd) {
			return fmt.Errorf("%s is etcd %q, and %s is the oldest that will do", member, s.Version, oldestEtcd)
		}
	}
	return nil
}

func (e *Etcd) status(ctx context.Context, member string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return e.client.Status(ctx, member)
}

// explain adds what an error of etcd means.
func explain(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "context deadline exceeded"):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Client returns a client that sees nothing but what is below the prefix, as if it
// were all there is. Each call returns a new one; closing it ends its watches and
// leaves the connection open.
func (e *Etcd) Client() *kubernetes.Client {
	c := clientv3.NewCtxClient(context.Background())
	c.KV = tolerantKV{namespace.NewKV(clientv3.NewKV(e.client), e.config.Prefix)}
	c.Watcher = namespace.NewWatcher(leaderWatcher{clientv3.NewWatcher(e.client)}, e.config.Prefix)
	c.Lease = namespace.NewLease(clientv3.NewLease(e.client), e.config.Prefix)
	c.Maintenance = clientv3.NewMaintenance(e.client)
	k := &kubernetes.Client{Client: c}
	k.Kubernetes = k
	return k
}

// Close ends the connection, and with it the watches of all clients.
func (e *Etcd) Close() error {
	defer e.end()
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// leaderWatcher ends watches at a member that lost its cluster: they would be silent.
type leaderWatcher struct{ clientv3.Watcher }

func (w leaderWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	return w.Watcher.Watch(clientv3.WithRequireLeader(ctx), key, opts...)
}

// RequestProgress reaches the watches with an equal context.
func (w leaderWatcher) RequestProgress(ctx context.Context) error {
	return w.Watcher.RequestProgress(clientv3.WithRequireLeader(ctx))
}

// tolerantKV leaves compaction to others where they do it.
type tolerantKV struct{ clientv3.KV }

// Compact compacts the whole etcd; every tenant keeps the same minutes of history,
// and what another has compacted is done. An etcd that knows users lets only root do
// it: such a one compacts by itself, as its provider set it up.
func (kv tolerantKV) Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	r, err := kv.KV.Compact(ctx, rev, opts...)
	if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrPermissionDenied) {
		return &clientv3.CompactResponse{}, nil
	}
	return r, err
}
