package server

import (
	"bytes"
	"context"
	"fmt"

	"sublet.dev/tenant-apiserver/store"
)

// byThemselves are the keys that are written while nobody does anything: what the
// node reports every few minutes, events (which say what happened, and end), leases
// that somebody renews who is either connected or part of the control plane, and the
// compaction's own.
var byThemselves = [][]byte{
	[]byte("/registry/minions/"), []byte("/registry/events/"), []byte("/registry/leases/"),
	[]byte("/registry/masterleases/"), []byte("compact_rev_key"),
}

// Activity says whether anything was written after a revision, but for what is
// written without anybody's doing, and which revision is the last. Where the history
// is not kept here (an etcd) or not kept any more, something was.
func (s *Server) Activity(ctx context.Context, after int64) (last int64, written bool, err error) {
	file := s.File()
	if file == nil {
		return 0, true, nil
	}
	stats, err := file.Stats(ctx)
	if err != nil {
		return 0, true, wrap(s.config.Name, err)
	}
	if stats.Revision <= after {
		return stats.Revision, false, nil
	}
	if after <= 0 || stats.Compacted > after {
		return stats.Revision, true, nil
	}
	written, err = writtenBetween(ctx, file, after, stats.Revision)
	if err != nil {
		return stats.Revision, true, wrap(s.config.Name, err)
	}
	return stats.Revision, written, nil
}

// writtenBetween looks through the log.
func writtenBetween(ctx context.Context, file *store.Store, after, until int64) (bool, error) {
	cursor, err := file.Watch(store.Range{Key: []byte{0}, End: []byte{0}}, after+1)
	if err != nil {
		return true, fmt.Errorf("look for changes: %w", err)
	}
	defer cursor.Close()
	for {
		batch, _, err := cursor.Poll(ctx)
		if err != nil {
			return true, fmt.Errorf("look for changes: %w", err)
		}
		for _, e := range batch.Events {
			if !byItself(e.KV.Key) {
				return true, nil
			}
		}
		if batch.Revision >= until {
			return false, nil
		}
	}
}

func byItself(key []byte) bool {
	for _, prefix := range byThemselves {
		if bytes.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
