// Package store is one tenant's database: a revisioned key-value log in a
// single bbolt file, with a write-ahead log beside it while it is open. It knows
// bytes, keys and revisions, and nothing of Kubernetes or etcd; package
// etcdclient gives it the face of etcd.
//
// # What lies on disk
//
// The file, store.db, after every checkpoint and Close:
//
//	meta    "head"              -> format, revision, compacted, swept, sizes, seq, line, id
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
// The write-ahead log, store.db.wal0 and store.db.wal1: what the file lacks.
//
//	| frame 8 | frame 9 | frame 10 | (frames of an earlier lap) ... zeros |
//	   line lap seq length crc   bucket key value, bucket key value, ..., head
//
// A frame holds the entries that one group of requests left in the buckets,
// sealed as they are in the file, and the head after them. Its seq is one more
// than that of the frame before; the file's head says up to which seq the file
// has everything. The two segments are filled with zeros before they are used
// and then written over and over in turn, so that a flush writes no metadata and
// room is known to be there. The one that is not in use is prepared in the
// background while the one in use fills up, larger under more load. line is a random number of the file: another file's
// log is refused, and no value of a tenant can pass for a frame.
//
// # The way of a write
//
//	Txn, Grant, Compact ... -> queue -> writer goroutine
//	      all that is queued is a group: evaluate in order, assign revisions
//	   -> one frame, one fdatasync
//	   -> publish the state, publish events in revision order -> acknowledge
//
//	state:    newest layer | layer on its way into the file | file
//	on disk:  one segment  | the other segment              | store.db
//
// No timer waits for a batch to fill: a group is what queued up while the group
// before it was being written. Only callers who were just answered get a moment to
// come back, at most a quarter of what that group's flush took, or a millisecond:
// else those who write in a loop fall into two halves that wait for each other's
// flushes. One caller alone is not waited for, and groups in whose moment too few
// came back are followed by 2 to 64 that do not wait. An operation that is refused (a failed
// comparison is an answer, an unknown lease a refusal) does not touch its
// neighbours. When the disk fails, nobody in the group is acknowledged.
//
// A layer is a sorted tree of changes, shared by copy on write: the writer
// clones the newest one for each group, and readers keep what they loaded. A read
// looks through the layers, the newest first, and then the file, in a bbolt
// transaction that is not ahead of them.
//
// # The way into the file
//
// When the newest layer is large, or some seconds old, the writer begins another
// one and turns to the other segment, and a goroutine writes the older to the
// file in one bbolt transaction (two fdatasyncs). Then its segment may be written
// over. When a segment is full before that, the writer turns to the other one, if it
// is free, and begins a checkpoint to free the full one. While the newest layer is full and a checkpoint runs, writers wait. A
// store without work has no layers and two small segments.
//
// Open reads the frames that follow the file's seq. They must go on without a
// gap; the last may be torn, since nobody was told of it, but a good frame behind
// a bad one is damage. They become a layer, and the way goes on as above.
//
// When a checkpoint leaves more than half of the file free, and that is much, its
// goroutine copies the file into a smaller one, flushes and checks that, and renames
// it into the file's place. Nobody else writes to the file, so nothing is missing;
// writers go on into the log, and readers finish in the file that they began in.
//
// When the file cannot grow because the disk is full, the store empties its
// ballast, a file that keeps blocks for this, and tries again; until the ballast
// is back, and as long as a checkpoint cannot be made, puts are refused with
// ErrNoSpace, and deletes and compactions are accepted. A put beyond the quota is
// refused with ErrQuota. A store that had to refuse something compacts itself.
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
//   - A closed store is one file.
//   - A damaged or foreign file or log is refused by Open with an error that
//     says so. Only damage to the very last frame of a store that was not closed
//     cannot be told from a write that a crash cut off. Damage or a disk error met
//     later puts this store, and no other, out of service: everything then
//     returns ErrFailed. Neither takes the process down.
//
// # Goroutines
//
// One writer for each open Store, one for a checkpoint while it runs, and one while
// a segment is prepared; Close waits for all. Reads and cursors run in the goroutines of their callers.
package store
