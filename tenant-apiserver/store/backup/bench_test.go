package backup

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"sublet.dev/tenant-apiserver/store"
)

// large is a store with n values of a KiB.
func large(b *testing.B, n int) *store.Store {
	b.Helper()
	s := open(b, filepath.Join(b.TempDir(), "store.db"), store.Options{ID: "acme"})
	value := bytes.Repeat([]byte("0123456789abcdef"), 64)
	for i := 0; i < n; i += 256 {
		var ops []store.Op
		for j := range 256 {
			ops = append(ops, store.Op{Put: &store.Put{Key: fmt.Appendf(nil, "/registry/configmaps/ns/%07d", i+j), Value: value}})
		}
		if _, err := s.Txn(b.Context(), store.Txn{Then: ops}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

const benchKeys = 100 << 10

// BenchmarkTake backs up 100 MiB.
func BenchmarkTake(b *testing.B) {
	s := large(b, benchKeys)
	b.SetBytes(benchKeys << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Take(b.Context(), s, io.Discard, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRestore verifies 100 MiB and makes a store of them.
func BenchmarkRestore(b *testing.B) {
	data := taken(b, large(b, benchKeys))
	path := filepath.Join(b.TempDir(), "restored.db")
	b.SetBytes(benchKeys << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Restore(b.Context(), bytes.NewReader(data), Target{Path: path, Tenant: "acme"}); err != nil {
			b.Fatal(err)
		}
	}
}
