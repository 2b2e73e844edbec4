package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// format is the version of the layout drawn in the package documentation; the
// files of formatBefore, which has no write-ahead log, are taken over by Open.
const (
	format       = 2
	formatBefore = 1
)

// bucketID is a bucket of the file. Their order is the one in which a checkpoint
// writes them.
type bucketID byte

// The buckets of the file.
const (
	bucketMeta bucketID = iota
	bucketCur
	bucketLog
	bucketLease
	bucketDue
	bucketHeld
	buckets int = iota
)

var bucketNames = [buckets][]byte{
	[]byte("meta"), []byte("cur"), []byte("log"), []byte("lease"), []byte("due"), []byte("held"),
}

func (b bucketID) name() []byte   { return bucketNames[b] }
func (b bucketID) String() string { return string(bucketNames[b]) }

var (
	// counted are the buckets whose sizes meta keeps, in this order.
	counted = [...]bucketID{bucketCur, bucketLog, bucketLease, bucketDue, bucketHeld}
	keyHead = []byte("head")
)

// errDecode is what every decoder returns for bytes that it did not write.
var errDecode = errors.New("bytes do not decode")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b bucketID, key, body []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b.name())
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, body)
}

// seal appends to body the checksum that binds it to its place.
func seal(b bucketID, key, body []byte) []byte {
	return binary.BigEndian.AppendUint32(body, checksum(b, key, body))
}

// unseal returns the body of a sealed value, which it shares memory with.
func unseal(b bucketID, key, sealed []byte) ([]byte, error) {
	if len(sealed) < crc32.Size {
		return nil, fmt.Errorf("%w: %s/%x is cut short", ErrCorrupt, b, key)
	}
	body := sealed[:len(sealed)-crc32.Size]
	if binary.BigEndian.Uint32(sealed[len(body):]) != checksum(b, key, body) {
		return nil, fmt.Errorf("%w: checksum of %s/%x does not match", ErrCorrupt, b, key)
	}
	return body, nil
}

// pos is the place of a record in the log: the transaction's revision and the
// record's number within it. The zero pos is no place.
type pos struct {
	rev int64
	sub uint32
}

const posLen = 12

func (p pos) bytes() []byte { return p.appendTo(make([]byte, 0, posLen)) }

func (p pos) appendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(p.rev)), p.sub)
}

func decodePos(b []byte) (pos, error) {
	if len(b) != posLen {
		return pos{}, fmt.Errorf("log key of %d bytes: %w", len(b), errDecode)
	}
	p := pos{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint32(b[8:])}
	if p.rev <= 0 {
		return pos{}, fmt.Errorf("log key of revision %d: %w", p.rev, errDecode)
	}
	return p, nil
}

// entry is what cur says of a key. version 0: the record at the place is a deletion.
type entry struct {
	at      pos
	create  int64
	version int64
	lease   int64
}

func (e entry) live() bool { return e.version > 0 }

func (e entry) appendTo(b []byte) []byte {
	return appendInts(b, e.at.rev, int64(e.at.sub), e.create, e.version, e.lease)
}

// sealedSize is the length of the entry's value, or absent for the zero entry.
func (e entry) sealedSize() int {
	if e.at == (pos{}) {
		return absent
	}
	var b [5 * binary.MaxVarintLen64]byte
	return len(e.appendTo(b[:0])) + crc32.Size
}

func decodeEntry(b []byte) (entry, error) {
	var n [5]int64
	rest, err := readInts(b, n[:])
	if err != nil || len(rest) != 0 {
		return entry{}, fmt.Errorf("cur value: %w", errDecode)
	}
	return entry{at: pos{n[0], uint32(n[1])}, create: n[2], version: n[3], lease: n[4]}, nil
}

// record is one change of one key.
type record struct {
	deleted bool
	create  int64
	version int64
	lease   int64
	prev    pos // the record of the same key before this one
	key     []byte
	value   []byte
}

func (r record) appendTo(b []byte) []byte {
	kind := int64(0)
	if r.deleted {
		kind = 1
	}
	b = appendInts(b, kind, r.create, r.version, r.lease, r.prev.rev, int64(r.prev.sub), int64(len(r.key)))
	return append(append(b, r.key...), r.value...)
}

// decodeRecord returns a record that shares memory with b.
func decodeRecord(b []byte) (record, error) {
	var n [7]int64
	rest, err := readInts(b, n[:])
	if err != nil || n[0] > 1 || n[6] == 0 || n[6] > int64(len(rest)) {
		return record{}, fmt.Errorf("log value: %w", errDecode)
	}
	return record{
		deleted: n[0] == 1, create: n[1], version: n[2], lease: n[3],
		prev: pos{n[4], uint32(n[5])}, key: rest[:n[6]:n[6]], value: rest[n[6]:],
	}, nil
}

// head is the one record of meta.
type head struct {
	format    int64
	rev       int64 // of the last transaction that changed something; 1 in a new store
	compacted int64 // reads below it are refused; 0: nothing was compacted
	swept     pos   // compaction has removed what it may below this place
	// sizes of the counted buckets: a page that lost entries would go unnoticed
	// otherwise.
	sizes [len(counted)]int64
	// seq is the last group of changes: it counts the frames of the log, and in
	// the file says up to which of them the file has all.
	seq int64
	// line is a random number that ties the log to this file; nobody who writes
	// values can know it, so no value can pass for a frame.
	line uint64
	id   string
}

// newHead is the head of a new file.
func newHead(id string) head {
	return head{format: format, rev: 1, line: newLine(), id: id}
}

// newLine is never 0, which is what an unused log begins with.
func newLine() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails: see crypto/rand
		if line := binary.BigEndian.Uint64(b[:]); line != 0 {
			return line
		}
	}
}

func (h head) appendTo(b []byte) []byte {
	b = appendInts(b, h.format, h.rev, h.compacted, h.swept.rev, int64(h.swept.sub))
	b = appendInts(appendInts(b, h.sizes[:]...), h.seq)
	return append(binary.BigEndian.AppendUint64(b, h.line), h.id...)
}

// encode is appendTo for those who have no buffer.
func (h head) encode() []byte { return h.appendTo(nil) }

// decodeHead reads the format first, since all after it may be unknown. A head
// of the format before has no seq and no line.
func decodeHead(b []byte) (head, error) {
	bad := fmt.Errorf("meta value: %w", errDecode)
	var n [1]int64
	rest, err := readInts(b, n[:])
	if err != nil {
		return head{}, bad
	}
	if n[0] != format && n[0] != formatBefore {
		return head{format: n[0]}, nil
	}
	var m [4]int64
	if rest, err = readInts(rest, m[:]); err != nil {
		return head{}, bad
	}
	h := head{format: format, rev: m[0], compacted: m[1], swept: pos{m[2], uint32(m[3])}}
	if rest, err = readInts(rest, h.sizes[:]); err != nil {
		return head{}, bad
	}
	if n[0] == format {
		var seq [1]int64
		if rest, err = readInts(rest, seq[:]); err != nil || len(rest) < 8 {
			return head{}, bad
		}
		h.seq, h.line, rest = seq[0], binary.BigEndian.Uint64(rest), rest[8:]
	}
	h.id = string(rest)
	return h, nil
}

// lease is the value of the lease bucket.
type lease struct {
	ttl      int64 // seconds
	deadline int64 // unix nanoseconds
}

func (l lease) appendTo(b []byte) []byte { return appendInts(b, l.ttl, l.deadline) }

func decodeLease(b []byte) (lease, error) {
	var n [2]int64
	rest, err := readInts(b, n[:])
	if err != nil || len(rest) != 0 {
		return lease{}, fmt.Errorf("lease value: %w", errDecode)
	}
	return lease{ttl: n[0], deadline: n[1]}, nil
}

func idBytes(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func appendInts(b []byte, ns ...int64) []byte {
	for _, n := range ns {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// readInts fills ns with what appendInts wrote, none of it negative.
func readInts(b []byte, ns []int64) ([]byte, error) {
	for i := range ns {
		u, n := binary.Uvarint(b)
		if n <= 0 || int64(u) < 0 {
			return nil, errDecode
		}
		ns[i], b = int64(u), b[n:]
	}
	return b, nil
}
