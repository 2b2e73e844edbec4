package cell

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/plan"
)

// Tenant is everything that a cell has to know to host a tenant.
type Tenant struct {
	tenant.Tenant
	// ServerName is the name by which the front door knows the tenant. Its
	// serving certificate carries it.
	ServerName string `json:"serverName"`
	// InCluster is where the tenant's pods reach the API behind the Service
	// default/kubernetes.
	InCluster netip.AddrPort `json:"inCluster"`
	// Etcd is where the tenant's cluster is kept; its zero value is a file in the
	// tenant's directory.
	Etcd EtcdStore `json:"etcd,omitzero"`
	// Terms is what the tenant's plan gives it. They may change while it runs.
	Terms plan.Terms `json:"terms"`
	// Authentication is an AuthenticationConfiguration as JSON: whose OpenID Connect
	// tokens are taken. It may change while the tenant runs.
	Authentication json.RawMessage `json:"authentication,omitempty"`
	// CAs are the oldest CA of the tenant that is trusted, and the one that signs.
	// They are in the tenant's directory; these say when to read it again, which a
	// control plane that runs does.
	CAs [2]int64 `json:"cas"`
	// Revoked are the serial numbers of certificates that are refused. There may be
	// more while the tenant runs; none is taken back.
	Revoked []string `json:"revoked,omitempty"`
}

// sameBut says whether two values describe the same tenant, apart from what can be
// changed without restarting its control plane.
func (t Tenant) sameBut(o Tenant) bool {
	return t.Tenant == o.Tenant && t.ServerName == o.ServerName && t.InCluster == o.InCluster && t.Etcd == o.Etcd
}

// validate returns an error that names the field which cannot be used.
func (t Tenant) validate() error {
	switch {
	case t.ID == "" || t.HostNamespace == "" || t.ServerName == "":
		return fmt.Errorf("tenant %q: id, hostNamespace and serverName must be set", t.Name)
	case tenant.ValidateName(t.Name) != nil:
		return fmt.Errorf("tenant %s: %w", t.ID, tenant.ValidateName(t.Name))
	case t.Sandbox.Validate() != nil:
		return fmt.Errorf("tenant %q: %w", t.Name, t.Sandbox.Validate())
	case !t.ServiceCIDR.IsValid():
		return fmt.Errorf("tenant %q: serviceCIDR must be set", t.Name)
	case !t.InCluster.IsValid():
		return fmt.Errorf("tenant %q: inCluster must be set", t.Name)
	}
	if _, err := t.Etcd.Config(); err != nil {
		return fmt.Errorf("tenant %q: %w", t.Name, err)
	}
	return nil
}

// Phase is the state of a hosted tenant in one word.
type Phase string

// The phases. Degraded means that the API answers but the companion does not run,
// Asleep that the API answers once somebody connects.
const (
	Starting Phase = "Starting"
	Ready    Phase = "Ready"
	Degraded Phase = "Degraded"
	Asleep   Phase = "Asleep"
	Failed   Phase = "Failed"
	Stopped  Phase = "Stopped"
)

// Reasons of a Failed or Degraded tenant, fit for a condition.
const (
	ReasonStoreCorrupt = "StoreCorrupt"
	ReasonStoreForeign = "StoreForeign"
	ReasonStoreMissing = "StoreMissing" // of a tenant that has run before
	ReasonStoreNewer   = "StoreNewerFormat"
	ReasonStoreInUse   = "StoreInUse"
	ReasonStoreFailed  = "StoreFailed" // a disk error; the store is opened again
	ReasonDiskFull     = "DiskFull"
	ReasonKeysCorrupt  = "KeysCorrupt"
	ReasonCAMissing    = "AuthorityMissing"     // of a tenant that has run before
	ReasonKeyMissing   = "EncryptionKeyMissing" // the store cannot be read without
	ReasonKMS          = "KMSUnavailable"
	ReasonEtcd         = "EtcdUnavailable"
	ReasonEtcdDenied   = "EtcdAccessDenied"
	ReasonStartFailed  = "StartFailed"
	ReasonEnded        = "ControlPlaneEnded"
	ReasonCompanion    = "SyncerFailed"
)

// Status is what a cell says of a tenant.
type Status struct {
	ID      tenant.ID `json:"id"`
	Name    string    `json:"name"`
	Phase   Phase     `json:"phase"`
	Reason  string    `json:"reason,omitempty"`  // of Failed and Degraded
	Message string    `json:"message,omitempty"` // what happened and what to do
	Since   time.Time `json:"since"`
	// Of Asleep: when the tenant wakes by itself (zero: never), and what its
	// companion had seen of the host. When the host has changed since, somebody has
	// to wake it.
	Due  time.Time `json:"due,omitzero"`
	Seen Seen      `json:"seen,omitzero"`
}

// Rest is what a companion says that has nothing to do.
type Rest struct {
	// Due is when it will have something to do by itself; the zero time: never.
	Due time.Time
	// Seen is what it has seen of the host, and carried out.
	Seen Seen
}

// Seen is how far the objects in a tenant's host namespace have been seen that
// companions made there.
type Seen struct {
	Pods            Mark `json:"pods,omitzero"`
	Services        Mark `json:"services,omitzero"`
	EndpointSlices  Mark `json:"endpointSlices,omitzero"`
	ConfigMaps      Mark `json:"configMaps,omitzero"`
	Secrets         Mark `json:"secrets,omitzero"`
	NetworkPolicies Mark `json:"networkPolicies,omitzero"`
	Claims          Mark `json:"claims,omitzero"`
	Ingresses       Mark `json:"ingresses,omitzero"`
}

// Mark is how far the objects of one kind have been seen.
type Mark struct {
	Version string `json:"version,omitempty"` // the newest resource version; "": none
	Count   int    `json:"count,omitempty"`   // how many objects there were
}

// Settled says whether waiting alone will not change the phase soon.
func (s Status) Settled() bool { return s.Phase != Starting }

// Snapshot is the state of a cell at a revision.
type Snapshot struct {
	Instance string `json:"instance"` // another one after a restart
	Revision uint64 `json:"revision"` // grows with every change of a status
	// Ending: all tenants sleep, and the process ends so that a new one takes its
	// place. What the tenants' statuses say holds for that, too.
	Ending  bool     `json:"ending,omitempty"`
	Tenants []Status `json:"tenants"`
}
