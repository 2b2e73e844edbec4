// Package migrate moves a cluster between a store's file and an etcd, through the
// format of package backup: what can be backed up can be moved, and the other way
// round.
//
//	file --backup.Take-----------+                +--> backup.Prepare, Commit --> file
//	                             +--> a backup  --+
//	etcd --Source, backup.Take---+                +--> Load -------------------> etcd
//
// It works on any client of etcd's KV and Lease, which may see only what is below a
// prefix (namespace.NewKV): keys are the same on both sides, so values that are
// encrypted under their keys' paths stay readable.
//
// Load is not finished before its last write, which stamps the owner's ID: nobody
// starts on a part of a cluster, and one that was interrupted is begun anew. Before
// that it reads everything back. Revisions never go back: an etcd that is behind the
// store is brought forward, or refused when it is too far behind.
//
// Nothing may write to either side meanwhile; that is the caller's part.
package migrate
