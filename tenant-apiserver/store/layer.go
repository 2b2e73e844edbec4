package store

import (
	"bytes"

	"github.com/tidwall/btree"
	bolt "go.etcd.io/bbolt"
)

// change is one entry of a bucket as a group of requests left it: its sealed
// value, or nil when it was removed.
type change struct {
	bucket     bucketID
	key, value []byte
}

func (c *change) before(d *change) bool {
	if c.bucket != d.bucket {
		return c.bucket < d.bucket
	}
	return bytes.Compare(c.key, d.key) < 0
}

// layer is a sorted set of changes in memory that lies over the file. It may be
// read by many as long as nobody writes to it; whoever wants to, clones it.
type layer struct {
	tree  *btree.BTreeG[*change]
	bytes int // of the frames that hold the changes, as written to the log
}

// layerDegree makes small nodes, since each group copies some.
const layerDegree = 16

func newLayer() *layer {
	return &layer{tree: btree.NewBTreeGOptions((*change).before, btree.Options{NoLocks: true, Degree: layerDegree})}
}

// clone shares all memory with l until the clone is written to.
func (l *layer) clone() *layer { return &layer{tree: l.tree.Copy(), bytes: l.bytes} }

func (l *layer) empty() bool { return l.tree.Len() == 0 }

func (l *layer) set(c *change) { l.tree.Set(c) }

// over returns l lying over older, as one layer.
func (l *layer) over(older *layer) *layer {
	merged := older.clone()
	l.tree.Scan(func(c *change) bool { merged.set(c); return true })
	merged.bytes += l.bytes
	return merged
}

// tables are the buckets as one group left them: layers, the newest first, over
// a transaction of bbolt. Used by one goroutine.
type tables struct {
	tx      *bolt.Tx
	layers  []*layer
	buckets [buckets]*bolt.Bucket // opened when first needed
	probe   change                // what is looked for; kept here to save allocations
}

func (t *tables) file(b bucketID) *bolt.Bucket {
	if t.buckets[b] == nil {
		t.buckets[b] = t.tx.Bucket(b.name())
	}
	return t.buckets[b]
}

// get returns the sealed value of a key, nil when it is absent. It is valid as
// long as the transaction.
func (t *tables) get(b bucketID, key []byte) []byte {
	t.probe.bucket, t.probe.key = b, key
	for _, l := range t.layers {
		if c, found := l.tree.Get(&t.probe); found {
			return c.value
		}
	}
	return t.file(b).Get(key)
}

// cursor walks a bucket in the order of its keys: file and layers in one.
type cursor struct {
	bucket     bucketID
	layers     []layerCursor // the newest first
	file       *bolt.Cursor
	key, value []byte // what file is at; key nil: at its end
}

type layerCursor struct {
	tree *btree.BTreeG[*change]
	iter btree.IterG[*change]
	at   *change // nil: at the end
}

func (t *tables) cursor(b bucketID) *cursor {
	c := &cursor{bucket: b, file: t.file(b).Cursor()}
	for _, l := range t.layers {
		if !l.empty() {
			c.layers = append(c.layers, layerCursor{tree: l.tree})
		}
	}
	return c
}

// seek returns the first entry whose key is not below key; a nil key is the end.
func (c *cursor) seek(key []byte) (k, v []byte) {
	c.key, c.value = c.file.Seek(key)
	for i := range c.layers {
		l := &c.layers[i]
		l.iter = l.tree.Iter()
		l.took(c.bucket, l.iter.Seek(&change{bucket: c.bucket, key: key}))
	}
	return c.next()
}

// took notes what the iterator is at.
func (l *layerCursor) took(b bucketID, found bool) {
	l.at = nil
	if found && l.iter.Item().bucket == b {
		l.at = l.iter.Item()
	}
}

// next returns the entry after the one returned last.
func (c *cursor) next() (k, v []byte) {
	for {
		k, v = c.key, c.value
		fromLayer := false
		for i := range c.layers {
			if at := c.layers[i].at; at != nil && (k == nil || bytes.Compare(at.key, k) < 0 || !fromLayer && bytes.Equal(at.key, k)) {
				k, v, fromLayer = at.key, at.value, true
			}
		}
		if k == nil {
			return nil, nil
		}
		c.pass(k)
		if v != nil {
			return k, v
		}
	}
}

// pass moves on whatever is at key.
func (c *cursor) pass(key []byte) {
	for i := range c.layers {
		if l := &c.layers[i]; l.at != nil && bytes.Equal(l.at.key, key) {
			l.took(c.bucket, l.iter.Next())
		}
	}
	if c.key != nil && bytes.Equal(c.key, key) {
		c.key, c.value = c.file.Next()
	}
}
