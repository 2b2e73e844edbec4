package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Writer writes a backup: entries and leases in order, then Close.
type Writer struct {
	w      *bufio.Writer
	sum    hash.Hash
	buf    []byte
	last   []byte
	footer Footer
	leases map[int64]bool
	err    error
}

// NewWriter begins a backup with its header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the header: %w", err)
	}
	b := &Writer{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New(), leases: map[int64]bool{}}
	b.write(binary.BigEndian.AppendUint32([]byte(magic), format))
	b.frame(frameHeader, payload)
	return b, b.err
}

// Lease adds a lease, before the first entry that names it.
func (b *Writer) Lease(l Lease) error {
	if l.ID == 0 || b.leases[l.ID] {
		return fmt.Errorf("write backup: lease %d comes twice", l.ID)
	}
	b.leases[l.ID] = true
	b.footer.Leases++
	b.frame(frameLease, l.encode())
	return b.err
}

// HasLease says whether the lease was written already.
func (b *Writer) HasLease(id int64) bool { return b.leases[id] }

// Entry adds a key; its bytes are not kept.
func (b *Writer) Entry(e Entry) error {
	switch {
	case len(e.Key) == 0 || bytes.Compare(e.Key, b.last) <= 0:
		return fmt.Errorf("write backup: key %q is out of order", e.Key)
	case e.Lease != 0 && !b.leases[e.Lease]:
		return fmt.Errorf("write backup: key %q names the unknown lease %d", e.Key, e.Lease)
	case len(e.Key)+len(e.Value) > maxPayload-64:
		return fmt.Errorf("write backup: key %q is too large", e.Key)
	}
	b.last = append(b.last[:0], e.Key...)
	b.footer.Entries++
	b.footer.Bytes += int64(len(e.Key) + len(e.Value))
	b.frame(frameEntry, e.encode(nil))
	return b.err
}

// Close ends the backup with its footer. It does not close the underlying writer.
func (b *Writer) Close() (Footer, error) {
	b.sum.Sum(b.footer.SHA256[:0])
	b.frame(frameFooter, b.footer.encode())
	if b.err == nil {
		if err := b.w.Flush(); err != nil {
			b.err = fmt.Errorf("write backup: %w", err)
		}
	}
	if b.err == nil {
		b.err = errClosed
		return b.footer, nil
	}
	return b.footer, b.err
}

var errClosed = errors.New("write backup: it is closed")

func (b *Writer) frame(kind byte, payload []byte) {
	b.buf = appendFrame(b.buf[:0], kind, payload)
	b.write(b.buf)
}

// write remembers the first failure.
func (b *Writer) write(p []byte) {
	if b.err != nil {
		return
	}
	b.sum.Write(p) // the footer's too, after its own sum was taken
	if _, err := b.w.Write(p); err != nil {
		b.err = fmt.Errorf("write backup: %w", err)
	}
}
