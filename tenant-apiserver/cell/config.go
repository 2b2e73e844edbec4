package cell

import (
	"errors"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/plan"
)

// Config says where a cell keeps what and what its tenants get.
type Config struct {
	Name      string
	Dir       func(tenant.ID) string // the tenant's directory: store.db, started and pki/
	GoldenDir string                 // shared with the other cells of this version
	// KeyFile is where the keys are that a tenant's store is encrypted with; its
	// directory exists. Nil: in the tenant's directory.
	KeyFile func(tenant.ID) string
	// KMS, if set, encrypts those keys.
	KMS keyring.KMS
	// Socket is the path of the unix socket on which a tenant's API speaks TLS; it
	// has 107 bytes at most (unix(7)), and its directory exists.
	Socket func(tenant.ID) string
	// Companion makes a tenant's companion. tenantAPI is cluster-admin inside the
	// tenant; objects are informers of the tenant's objects that read its storage.
	// The companion starts them; they are shut down once it has ended.
	Companion func(t tenant.Tenant, tenantAPI *rest.Config, objects informers.SharedInformerFactory) (Companion, error)
	// ValidatePod refuses pods that a tenant must not have; the error's text goes
	// to the tenant's user. In the place of its RuntimeClass it has the class's handler.
	ValidatePod func(t tenant.Tenant, tenantPod *corev1.Pod, terms plan.Terms) error
	// AuditWebhook is a kubeconfig that says where the audit events of all tenants are
	// sent, beside their files. Empty: nowhere.
	AuditWebhook string
	// CheckEvery is how long the cell rests between two looks through the open
	// stores for damage. 0: six hours.
	CheckEvery time.Duration
	// Renew is how long the cell runs at least before it ends by itself with
	// [ErrRenewed]: when all its tenants have been asleep for a while, none is due
	// soon, nobody connects, and it has clearly more memory than before any ran. Who
	// runs it is to start another, and to follow its changes: without that it goes on,
	// as with 0.
	Renew  time.Duration
	Clock  clock.WithTicker // nil: the real one
	Logger *slog.Logger
}

func (c Config) validate() error {
	if c.Name == "" || c.GoldenDir == "" || c.Dir == nil || c.Socket == nil || c.Companion == nil || c.ValidatePod == nil || c.Logger == nil {
		return errors.New("cell: Config.Name, GoldenDir, Dir, Socket, Companion, ValidatePod and Logger must be set")
	}
	return nil
}
