package backup

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"
)

const (
	magic  = "SUBLETBK"
	format = 1
	// maxPayload bounds a frame, so that a damaged length costs no memory. It is
	// far above the largest request that a store accepts.
	maxPayload = 64 << 20
)

// The types of frames.
const (
	frameHeader = 'H'
	frameLease  = 'L'
	frameEntry  = 'E'
	frameFooter = 'F'
)

const (
	frameHead = 5 // type and length
	frameTail = crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what a backup is of.
type Header struct {
	// Tenant is the ID stamped into the store; Name is for people.
	Tenant string `json:"tenant"`
	Name   string `json:"name,omitempty"`
	// Revision is the state's; Compacted the oldest that the store could read then.
	Revision  int64 `json:"revision"`
	Compacted int64 `json:"compacted"`
	// Time at which it was taken, by the clock of that machine.
	Time time.Time `json:"time"`
	// Program is the version of what wrote it.
	Program string `json:"program,omitempty"`
}

func (h Header) validate() error {
	if h.Revision < 1 || h.Compacted < 0 || h.Compacted > h.Revision {
		return fmt.Errorf("%w: it is of revision %d, compacted at %d", ErrDamaged, h.Revision, h.Compacted)
	}
	return nil
}

// Entry is one key with its value.
type Entry struct {
	Key, Value                                  []byte
	CreateRevision, ModRevision, Version, Lease int64
}

// Lease is what an entry may hang on: seconds granted, and left at the time of
// the backup.
type Lease struct {
	ID, TTL, Left int64
}

// Footer sums a backup up.
type Footer struct {
	Entries, Leases int64
	// Bytes of all keys and values.
	Bytes int64
	// SHA256 of all that comes before the footer.
	SHA256 [32]byte
}

func (l Lease) encode() []byte { return appendInts(nil, l.ID, l.TTL, l.Left) }

func decodeLease(b []byte) (Lease, error) {
	var n [3]int64
	rest, err := readInts(b, n[:])
	if err != nil || len(rest) != 0 || n[0] == 0 {
		return Lease{}, fmt.Errorf("%w: a lease does not decode", ErrDamaged)
	}
	return Lease{ID: n[0], TTL: n[1], Left: n[2]}, nil
}

func (e Entry) encode(b []byte) []byte {
	b = appendInts(b, e.CreateRevision, e.ModRevision, e.Version, e.Lease, int64(len(e.Key)))
	return append(append(b, e.Key...), e.Value...)
}

// decodeEntry returns an entry that shares memory with b.
func decodeEntry(b []byte) (Entry, error) {
	var n [5]int64
	rest, err := readInts(b, n[:])
	if err != nil || n[4] == 0 || n[4] > int64(len(rest)) {
		return Entry{}, fmt.Errorf("%w: an entry does not decode", ErrDamaged)
	}
	return Entry{
		CreateRevision: n[0], ModRevision: n[1], Version: n[2], Lease: n[3],
		Key: rest[:n[4]:n[4]], Value: rest[n[4]:],
	}, nil
}

func (f Footer) encode() []byte {
	return append(appendInts(nil, f.Entries, f.Leases, f.Bytes), f.SHA256[:]...)
}

func decodeFooter(b []byte) (Footer, error) {
	var n [3]int64
	rest, err := readInts(b, n[:])
	if err != nil || len(rest) != 32 {
		return Footer{}, fmt.Errorf("%w: its footer does not decode", ErrDamaged)
	}
	return Footer{Entries: n[0], Leases: n[1], Bytes: n[2], SHA256: [32]byte(rest)}, nil
}

func decodeHeader(b []byte) (Header, error) {
	var h Header
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("%w: its header does not decode: %w", ErrDamaged, err)
	}
	return h, h.validate()
}

// appendFrame adds a frame.
func appendFrame(b []byte, kind byte, payload []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(payload)))
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

func appendInts(b []byte, ns ...int64) []byte {
	for _, n := range ns {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// readInts fills ns with what appendInts wrote, none of it negative and each in
// its shortest form, so that a payload has one encoding.
func readInts(b []byte, ns []int64) ([]byte, error) {
	for i := range ns {
		u, n := binary.Uvarint(b)
		if n <= 0 || int64(u) < 0 || n > 1 && b[n-1] == 0 {
			return nil, ErrDamaged
		}
		ns[i], b = int64(u), b[n:]
	}
	return b, nil
}
