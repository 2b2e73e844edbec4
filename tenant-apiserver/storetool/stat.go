package storetool

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sublet.dev/tenant-apiserver/store/backup"
)

// Stat says how large a store or a backup is, and what takes the room.
type Stat struct {
	// Tenant is the ID of the tenant whose it is.
	Tenant string `json:"tenant,omitempty"`
	// FileBytes on disk; those of keys and values are Bytes.
	FileBytes int64 `json:"fileBytes"`
	// Revision is the last one, Compacted the oldest that can be read.
	Revision  int64 `json:"revision"`
	Compacted int64 `json:"compacted"`
	Keys      int64 `json:"keys"`
	Bytes     int64 `json:"bytes"`
	// Encrypted is how many of the values are.
	Encrypted int64 `json:"encrypted"`
	// Resources by the room they take, the largest first.
	Resources []Resource `json:"resources"`
}

// Resource is what a store has of one kind of object.
type Resource struct {
	// Prefix of its keys.
	Prefix string `json:"prefix"`
	Keys   int64  `json:"keys"`
	Bytes  int64  `json:"bytes"`
	// Largest is the key with the longest value.
	Largest      string `json:"largest"`
	LargestBytes int64  `json:"largestBytes"`
}

// StatStore looks through an open store.
func StatStore(ctx context.Context, s Source) (Stat, error) {
	st, err := s.Stats(ctx)
	if err != nil {
		return Stat{}, fmt.Errorf("look into the store: %w", err)
	}
	out := Stat{Tenant: st.ID, FileBytes: st.FileBytes, Revision: st.Revision, Compacted: st.Compacted}
	return out, out.count(OfStore(ctx, s))
}

// StatBackup looks through a backup of the given size.
func StatBackup(b *backup.Reader, size int64) (Stat, error) {
	h := b.Header()
	out := Stat{Tenant: h.Tenant, FileBytes: size, Revision: h.Revision, Compacted: h.Compacted}
	return out, out.count(OfBackup(b))
}

// encryptedPrefix begins every value that upstream's transformers encrypted.
const encryptedPrefix = "k8s:enc:"

func (s *Stat) count(each Each) error {
	byPrefix := map[string]*Resource{}
	err := each(func(e backup.Entry) error {
		prefix := resourcePrefix(string(e.Key))
		r := byPrefix[prefix]
		if r == nil {
			r = &Resource{Prefix: prefix}
			byPrefix[prefix] = r
		}
		n := int64(len(e.Key) + len(e.Value))
		s.Keys, s.Bytes = s.Keys+1, s.Bytes+n
		r.Keys, r.Bytes = r.Keys+1, r.Bytes+n
		if size := int64(len(e.Value)); r.Largest == "" || size > r.LargestBytes {
			r.Largest, r.LargestBytes = string(e.Key), size
		}
		if IsEncrypted(e.Value) {
			s.Encrypted++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look into the store: %w", err)
	}
	s.Resources = []Resource{}
	for _, r := range byPrefix {
		s.Resources = append(s.Resources, *r)
	}
	slices.SortFunc(s.Resources, func(a, b Resource) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Prefix, b.Prefix))
	})
	return nil
}

// IsEncrypted says whether a value was encrypted before it was stored.
func IsEncrypted(value []byte) bool {
	return strings.HasPrefix(string(value[:min(len(value), len(encryptedPrefix))]), encryptedPrefix)
}

// resourcePrefix returns the part of a key that all objects of its kind share:
// /registry/pods, /registry/GROUP/RESOURCE, /registry/services/specs.
func resourcePrefix(key string) string {
	parts := strings.Split(key, "/")
	n := 3 // "", registry, pods
	if len(parts) > 3 && (strings.Contains(parts[2], ".") || parts[2] == "services" || parts[2] == "ranges") {
		n = 4
	}
	if len(parts) <= n { // nothing follows: a key of its own
		return key
	}
	return strings.Join(parts[:n], "/")
}
