// Package store is one tenant's database: a revisioned key-value log in a
// single bbolt file. It knows bytes, keys and revisions, and nothing of
// Kubernetes or etcd; package etcdclient gives it the face of etcd.
//
// # What lies on disk
//
//	meta    "head"              -> format, revision, compacted, swept, sizes, id
//	cur     key                 -> mod, sub, create, version, lease   (version 0: deleted)
//	log     mod(8) sub(4)       -> kind, create, version, lease, prev, key, value
//	lease   id(8)               -> ttl, deadline
//	due     deadline(8) id(8)   -> (empty)      leases by the time they end
//	held    id(8) key           -> (empty)      keys by the lease they hang on
//
// Numbers in keys are big-endian, so that byte order is their order. Every
// value ends in a CRC-32C over its bucket, key and bytes, because bbolt checks
// only its two meta pages; sizes are the numbers of entries of the others, since
// an entry that is gone has no checksum.
//
// A value is stored once, in the log, under the revision that wrote it; cur
// says where. Each log record points at the one before it for the same key
// (prev), so the state of a key at an old revision is found by walking back
// from cur. A deletion is a record too, and cur keeps pointing at it until it
// is compacted away.
//
// # The way of a write
//
//	Txn, Grant, Compact ... -> queue -> writer goroutine
//	      one bbolt transaction for all that is queued: evaluate in order,
//	      assign revisions, commit (two fdatasyncs)
//	   -> publish events in revision order -> acknowledge
//
// Nothing waits for a batch to fill: a group is what queued up while the group
// before it was being written. An operation that is refused (a failed
// comparison is an answer, an unknown lease a refusal) does not touch its
// neighbours. When the disk fails, nobody in the group is acknowledged.
//
// # The way of a watch
//
// A Cursor is a position in the log. The writer notes in each cursor, in
// memory, the first revision that it must look at, and wakes it; the cursor
// then reads from a bounded ring of recent events, or from the log when it has
// fallen behind the ring. The writer never waits for a cursor and keeps nothing
// for it: one that falls behind the compaction gets ErrCompacted.
//
// # Promises
//
//   - An acknowledged write is on disk, and events are seen only after that.
//   - Revisions rise by one for each transaction that changes something,
//     are never reused and never skipped.
//   - A cursor gives every event of its range once, in order, and never a
//     part of a revision. Batch.Revision R means: every event up to R has
//     been given.
//   - The latest state at the compacted revision, deletions of that very
//     revision included, stays readable.
//   - A damaged or foreign file is refused by Open with an error that says so.
//     Damage or a disk error met later puts this store, and no other, out of
//     service: everything then returns ErrFailed. Neither takes the process down.
//
// # Goroutines
//
// One writer for each open Store; Close waits for it. Reads and cursors run in
// the goroutines of their callers.
package store
