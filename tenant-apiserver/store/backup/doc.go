// Package backup writes a store's state at one revision to a stream, verifies
// such a stream, and makes a store of it again. It knows keys, values, revisions
// and leases, and nothing of the engine's files: a backup made by one engine can
// be restored by another.
//
// # What a backup is
//
//	magic     "SUBLETBK"                                       8 bytes
//	format    1                                                4 bytes
//	frame     type(1) length(4) payload CRC-32C(4)             any number of times
//	  'H'  header    JSON: tenant, name, revision, compacted, time, program   first
//	  'L'  lease     id, ttl, left                             before the first key on it
//	  'E'  entry     create, mod, version, lease, len(key), key, value
//	  'F'  footer    entries, leases, bytes, SHA-256           last
//
// Numbers of a frame's head are big-endian, those of a payload are varints. The
// checksum of a frame covers its type, its length and its payload. The SHA-256
// covers every byte before the footer's frame. Keys rise; each lease is written
// once, before the entries that name it; nothing follows the footer. So a backup
// that was cut short, has a flipped bit, a part missing or twice, or parts of
// another one, is refused, whole: [Reader] returns io.EOF only after all of that
// was found to be right.
//
// Values are as they lie in the store: encrypted ones stay encrypted, under keys
// that a backup does not hold.
//
// # Taking one
//
// [Take] reads the store in pages at one revision, so it holds no long
// transaction, needs memory for a page, and keeps no writer waiting. Writes that
// come later are not in it. It does not hold compaction back, because a full disk
// could need that: a compaction past its revision ends it with ErrTryAgain.
// [WriteFile] gives a file its name only after it was read back and verified.
//
// # Restoring one
//
//	backup -> Reader -> a new store beside the old one, at revisions above all
//	          old ones -> verified against the footer, checked as a file
//	       -> the old store gets another name, the new one its name
//
// [Prepare] and [Prepared.Commit] touch the old store last. Every restored key is written anew, under
// a revision that nobody has seen: no object's resourceVersion goes back, and who
// watches from before gets ErrCompacted and lists again. Create revisions and
// versions begin anew too; Kubernetes looks at neither. What a lease had left when
// the backup was taken it has left again.
//
// The package starts no goroutines.
package backup
