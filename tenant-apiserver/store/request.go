package store

import "bytes"

// Range names keys: the single Key when End is empty, otherwise all keys from
// Key up to and without End. An End of one zero byte has no upper bound.
type Range struct {
	Key, End []byte
}

var openEnd = []byte{0}

func (r Range) single() bool { return len(r.End) == 0 }

// Contains says whether the range names key.
func (r Range) Contains(key []byte) bool {
	if r.single() {
		return bytes.Equal(key, r.Key)
	}
	return bytes.Compare(key, r.Key) >= 0 && r.before(key)
}

// before says whether key is below the upper bound of a range that is not single.
func (r Range) before(key []byte) bool {
	return bytes.Equal(r.End, openEnd) || bytes.Compare(key, r.End) < 0
}

// Prefix returns the range of all keys that begin with p.
func Prefix(p []byte) Range {
	end := bytes.Clone(p)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return Range{Key: p, End: end[:i+1]}
		}
	}
	return Range{Key: p, End: openEnd}
}

// KeyValue is one key as a revision left it. It is shared: nobody may change
// the bytes it points at.
type KeyValue struct {
	Key, Value []byte
	// ModRevision wrote this value, CreateRevision created the key, Version
	// counts the writes since then, from 1.
	ModRevision, CreateRevision, Version int64
	Lease                                int64
}

// Read asks for the keys of a range.
type Read struct {
	Range
	// Revision to read at. 0: the latest.
	Revision int64
	// Limit bounds how many keys are returned, not how many are counted. 0: none.
	Limit int64
	// KeysOnly leaves the values out, CountOnly the keys too.
	KeysOnly, CountOnly bool
}

// ReadResult holds keys in byte order.
type ReadResult struct {
	KVs []*KeyValue
	// Count is how many keys the range has, returned or not.
	Count int64
	// More is set when Limit cut the result.
	More bool
	// Revision is the store's at the time of the read.
	Revision int64
}

// Put writes one key. The store keeps Key and Value: the caller must not
// change them afterwards.
type Put struct {
	Key, Value []byte
	// Lease whose end deletes the key. 0: none.
	Lease int64
}

// Op is one step of a transaction: exactly one field is set.
type Op struct {
	Read   *Read
	Put    *Put
	Delete *Range
}

// OpResult is the outcome of the Op at the same place.
type OpResult struct {
	// Read is set for a Read.
	Read *ReadResult
	// Prev holds what a Put replaced (none or one) or a Delete removed.
	Prev []*KeyValue
}

// Target is the number of a key that a Compare looks at. A key that does not
// exist has 0 for all of them.
type Target int

// The targets.
const (
	ModRevision Target = iota
	CreateRevision
	Version
	Lease
	Value // compares bytes; never holds for a key that does not exist
)

// Relation of the key's number to the one of the Compare.
type Relation int

// The relations.
const (
	Equal Relation = iota
	NotEqual
	Greater
	Less
)

// Compare is one condition of a transaction.
type Compare struct {
	Key      []byte
	Target   Target
	Relation Relation
	Number   int64  // for all targets but Value
	Value    []byte // for Value
}

// Txn is a transaction: Then when all of If hold, otherwise Else. All its
// writes have one revision.
type Txn struct {
	If         []Compare
	Then, Else []Op
}

// TxnResult is the outcome of a transaction.
type TxnResult struct {
	// Succeeded says that Then was run.
	Succeeded bool
	Results   []OpResult
	// Revision of the transaction, or the store's when nothing was changed.
	Revision int64
}

// size of what the transaction brings in, and whether its keys are legal.
func (t Txn) size() (int, error) {
	n := 0
	for _, c := range t.If {
		if err := checkKey(c.Key); err != nil {
			return 0, err
		}
		n += len(c.Key) + len(c.Value)
	}
	for _, ops := range [][]Op{t.Then, t.Else} {
		for _, op := range ops {
			key, value := op.key(), 0
			if op.Put != nil {
				value = len(op.Put.Value)
			}
			if err := checkKey(key); err != nil {
				return 0, err
			}
			n += len(key) + value
		}
		if err := checkWrittenOnce(ops); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (o Op) key() []byte {
	switch {
	case o.Read != nil:
		return o.Read.Key
	case o.Put != nil:
		return o.Put.Key
	case o.Delete != nil:
		return o.Delete.Key
	}
	return nil
}

func checkKey(key []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	if len(key) > MaxKeyBytes {
		return ErrTooLarge
	}
	return nil
}

// checkWrittenOnce refuses a branch whose puts and deletes meet at a key: which
// of them should win is not defined.
func checkWrittenOnce(ops []Op) error {
	for i, a := range ops {
		if a.Put == nil {
			continue
		}
		for j, b := range ops {
			twice := b.Put != nil && j < i && bytes.Equal(a.Put.Key, b.Put.Key)
			if twice || b.Delete != nil && b.Delete.Contains(a.Put.Key) {
				return ErrDuplicateKey
			}
		}
	}
	return nil
}
