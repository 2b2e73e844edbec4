package cell

import (
	"errors"
	"syscall"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/tenant-apiserver/store"
)

var errEnded = errors.New("the tenant's control plane ended by itself")

// reasons names causes of failures for a condition, the one that says most first.
var reasons = []struct {
	cause  error
	reason string
}{
	{errStoreMissing, ReasonStoreMissing}, {server.ErrStoreMissing, ReasonStoreMissing},
	{server.ErrKeyMissing, ReasonKeyMissing}, {keyring.ErrCorrupt, ReasonKeysCorrupt}, {keyring.ErrKMS, ReasonKMS},
	{etcdclient.ErrDenied, ReasonEtcdDenied}, {etcdclient.ErrUnavailable, ReasonEtcd},
	{store.ErrCorrupt, ReasonStoreCorrupt}, {store.ErrForeign, ReasonStoreForeign},
	{store.ErrNewerFormat, ReasonStoreNewer}, {store.ErrInUse, ReasonStoreInUse},
	{store.ErrNoSpace, ReasonDiskFull}, {syscall.ENOSPC, ReasonDiskFull}, {syscall.EDQUOT, ReasonDiskFull},
	{store.ErrFailed, ReasonStoreFailed},
	{pki.ErrCorrupt, ReasonKeysCorrupt}, {pki.ErrMissing, ReasonCAMissing}, {errEnded, ReasonEnded},
}

// reasonOf names the cause of a failure for a condition.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.cause) {
			return r.reason
		}
	}
	return ReasonStartFailed
}
