package store

// A store is tight when its disk is full or its quota is used up. What frees
// room works all the same: deletes, compactions, and the end of leases. Nobody
// has to compact a tight store: the history is all that can go, and so it
// compacts itself when it has to refuse something.

// full says whether the disk is: the log and the ballast are then for what makes
// room.
func (s *Store) full() bool { return s.check.noSpace != nil || s.wal.ballast.spent() }

// SetQuota changes Options.QuotaBytes, from the next group on; 0: no bound. It
// removes nothing.
func (s *Store) SetQuota(bytes int64) { s.quota.Store(max(bytes, 0)) }

// admit refuses what takes room that is not there. A value that replaces another
// needs all of it too: the one before stays in the history.
func (g *group) admit(bytes int64) error {
	switch {
	case g.full:
		g.tight = true
		return ErrNoSpace
	case g.quota > 0 && g.data+bytes > g.quota:
		g.tight = true
		return ErrQuota
	}
	return nil
}

// relieve compacts a store up to its last revision that has refused something.
func (g *group) relieve() {
	if g.tight && !g.keep.sweeping && g.head.rev > g.head.compacted {
		g.changed()
		g.head.compacted, g.keep.sweeping = g.head.rev, true
	}
}

// putBytes is what a put adds to the buckets, or a little more.
func putBytes(p *Put) int64 { return int64(len(p.Value) + 2*len(p.Key) + putOverhead) }

// putOverhead is what stands beside key and value in the buckets, with a lease.
const putOverhead = 96

// measure counts the bytes of all entries.
func (s snapshot) measure() (n int64) {
	for _, b := range counted {
		c := s.cursor(b)
		for k, v := c.seek(nil); k != nil; k, v = c.next() {
			n += int64(len(k) + len(v))
		}
	}
	return n
}
