package storetool

import (
	"strings"

	"sublet.dev/tenant-apiserver/store/backup"
)

// Key is a key as a dump shows it.
type Key struct {
	Key            string `json:"key"`
	CreateRevision int64  `json:"createRevision"`
	ModRevision    int64  `json:"modRevision"`
	Version        int64  `json:"version"`
	Lease          int64  `json:"lease,omitempty"`
	Bytes          int64  `json:"bytes"` // of the value
	Encrypted      bool   `json:"encrypted,omitempty"`
	// Value as it is stored, in base64; only when asked for.
	Value []byte `json:"value,omitempty"`
}

// Dump calls f for the keys that begin with prefix, with their values if asked to.
func Dump(each Each, prefix string, values bool, f func(Key) error) error {
	return each(func(e backup.Entry) error {
		if !strings.HasPrefix(string(e.Key), prefix) {
			return nil
		}
		k := Key{
			Key: string(e.Key), CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, Version: e.Version,
			Lease: e.Lease, Bytes: int64(len(e.Value)), Encrypted: IsEncrypted(e.Value),
		}
		if values {
			k.Value = e.Value
		}
		return f(k)
	})
}
