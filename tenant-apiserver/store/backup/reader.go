package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// wholeBody is the size up to which a frame is read at once.
const wholeBody = 1 << 20

var errCut = fmt.Errorf("%w: it is cut short", ErrDamaged)

// Reader reads a backup and verifies it on the way.
type Reader struct {
	r      *bufio.Reader
	sum    hash.Hash
	header Header
	footer Footer // what was counted, then what was read
	leases map[int64]bool
	last   []byte
	err    error
}

// NewReader reads the header. Errors: ErrNotBackup, ErrDamaged, ErrNewerFormat,
// and those of r.
func NewReader(r io.Reader) (*Reader, error) {
	b := &Reader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New(), leases: map[int64]bool{}}
	head := make([]byte, len(magic)+4)
	if n, err := io.ReadFull(b.r, head); err != nil && !isEnd(err) {
		return nil, fmt.Errorf("read backup: %w", err)
	} else if !bytes.HasPrefix([]byte(magic), head[:min(n, len(magic))]) || n == 0 {
		return nil, ErrNotBackup
	} else if err != nil {
		return nil, errCut
	}
	if f := binary.BigEndian.Uint32(head[len(magic):]); f != format {
		return nil, fmt.Errorf("%w: %d, this release knows %d", ErrNewerFormat, f, format)
	}
	b.sum.Write(head)
	kind, payload, err := b.frame()
	if err != nil {
		return nil, err
	}
	if kind != frameHeader {
		return nil, fmt.Errorf("%w: it does not begin with a header", ErrDamaged)
	}
	b.header, err = decodeHeader(payload)
	return b, err
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// Header returns what the backup is of.
func (b *Reader) Header() Header { return b.header }

// Footer returns the sums, once Next has returned io.EOF.
func (b *Reader) Footer() Footer { return b.footer }

// Next returns the next lease or entry; the other is nil. io.EOF says that all
// was read and that all of it is as it was written; until then nothing of it is
// sure. Any other error stays.
func (b *Reader) Next() (*Lease, *Entry, error) {
	if b.err != nil {
		return nil, nil, b.err
	}
	l, e, err := b.next()
	b.err = err
	return l, e, err
}

func (b *Reader) next() (*Lease, *Entry, error) {
	kind, payload, err := b.frame()
	if err != nil {
		return nil, nil, err
	}
	switch kind {
	case frameLease:
		l, err := decodeLease(payload)
		if err == nil && b.leases[l.ID] {
			err = fmt.Errorf("%w: lease %d comes twice", ErrDamaged, l.ID)
		}
		b.leases[l.ID] = true
		b.footer.Leases++
		return &l, nil, err
	case frameEntry:
		e, err := decodeEntry(payload)
		if err == nil {
			err = b.inOrder(e)
		}
		return nil, &e, err
	case frameFooter:
		return nil, nil, b.end(payload)
	}
	return nil, nil, fmt.Errorf("%w: it has a part of the unknown type %q", ErrDamaged, kind)
}

// inOrder checks an entry against those before it.
func (b *Reader) inOrder(e Entry) error {
	switch {
	case bytes.Compare(e.Key, b.last) <= 0:
		return fmt.Errorf("%w: key %q is out of order", ErrDamaged, e.Key)
	case e.Lease != 0 && !b.leases[e.Lease]:
		return fmt.Errorf("%w: key %q names the unknown lease %d", ErrDamaged, e.Key, e.Lease)
	case e.ModRevision > b.header.Revision || e.CreateRevision > e.ModRevision || e.Version < 1:
		return fmt.Errorf("%w: key %q is of revision %d, beyond the backup's %d", ErrDamaged, e.Key, e.ModRevision, b.header.Revision)
	}
	b.last = append(b.last[:0], e.Key...)
	b.footer.Entries++
	b.footer.Bytes += int64(len(e.Key) + len(e.Value))
	return nil
}

// end checks the footer and that nothing follows it.
func (b *Reader) end(payload []byte) error {
	f, err := decodeFooter(payload)
	if err != nil {
		return err
	}
	b.sum.Sum(b.footer.SHA256[:0])
	if f != b.footer {
		return fmt.Errorf("%w: its footer tells of %d keys, %d leases and %d bytes; %d, %d and %d were read", ErrDamaged,
			f.Entries, f.Leases, f.Bytes, b.footer.Entries, b.footer.Leases, b.footer.Bytes)
	}
	var more [1]byte
	if n, err := io.ReadFull(b.r, more[:]); n > 0 {
		return fmt.Errorf("%w: something follows its footer", ErrDamaged)
	} else if !isEnd(err) {
		return fmt.Errorf("read backup: %w", err)
	}
	return io.EOF
}

// frame reads one frame. Its payload is the caller's.
func (b *Reader) frame() (kind byte, payload []byte, err error) {
	var head [frameHead]byte
	if err := b.full(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxPayload {
		return 0, nil, fmt.Errorf("%w: a part of %d bytes is too large", ErrDamaged, n)
	}
	raw, err := b.body(int64(n) + frameTail)
	if err != nil {
		return 0, nil, err
	}
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, raw[:n])
	if sum != binary.BigEndian.Uint32(raw[n:]) {
		return 0, nil, fmt.Errorf("%w: the checksum of a part does not match", ErrDamaged)
	}
	if head[0] != frameFooter { // which does not cover itself
		b.sum.Write(head[:])
		b.sum.Write(raw)
	}
	return head[0], raw[:n:n], nil
}

// body reads n bytes. More than a little grows as it comes: a wrong length must
// not cost memory.
func (b *Reader) body(n int64) ([]byte, error) {
	if n <= wholeBody {
		raw := make([]byte, n)
		return raw, b.full(raw)
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, b.r, n); isEnd(err) {
		return nil, errCut
	} else if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	return buf.Bytes(), nil
}

func (b *Reader) full(p []byte) error {
	_, err := io.ReadFull(b.r, p)
	if isEnd(err) {
		return errCut
	}
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	return nil
}

// Verify reads a whole backup and keeps nothing of it.
func Verify(r io.Reader) (Header, Footer, error) {
	b, err := NewReader(r)
	if err != nil {
		return Header{}, Footer{}, err
	}
	for {
		if _, _, err := b.Next(); errors.Is(err, io.EOF) {
			return b.header, b.footer, nil
		} else if err != nil {
			return b.header, Footer{}, err
		}
	}
}

// IsBackup says whether bytes, the first of a file, are those of a backup.
func IsBackup(first []byte) bool { return bytes.HasPrefix(first, []byte(magic)) }
