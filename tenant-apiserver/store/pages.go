package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts its pages: a bad one makes it panic, in part in goroutines that
// nobody can recover, and reading past the end of a truncated file is a fault.
// One process serves many tenants, so a file is checked here, with plain reads,
// before bbolt maps it. The numbers are those of bbolt's format version 2.
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	boltNoList   = ^uint64(0)
	pageHeader   = 16
	pageElement  = 16
	metaLen      = 64
	bucketHeader = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element
)

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize             uint32
	root, freelist, high uint64
	txid                 uint64
}

// checkPages walks all pages that the newest meta page reaches. It returns
// ErrForeign for bytes that are no bbolt file and ErrCorrupt for a bad one.
func checkPages(f io.ReaderAt, size int64) error {
	m, err := newestMeta(f, size)
	if err != nil {
		return err
	}
	if m.high < 2 || m.high > uint64(size)/uint64(m.pageSize) {
		return fmt.Errorf("%w: it is truncated: %d pages of %d bytes are in use, %d bytes are there",
			ErrCorrupt, m.high, m.pageSize, size)
	}
	for id := range uint64(2) {
		header := make([]byte, pageHeader)
		if _, err := f.ReadAt(header, int64(id)*int64(m.pageSize)); err != nil {
			return fmt.Errorf("read page %d: %w", id, err)
		}
		if binary.LittleEndian.Uint64(header) != id || binary.LittleEndian.Uint16(header[8:]) != flagMeta {
			return fmt.Errorf("%w: page %d is no meta page", ErrCorrupt, id)
		}
	}
	w := &pageWalk{f: f, pageSize: int64(m.pageSize), high: m.high, seen: make([]bool, m.high)}
	w.seen[0], w.seen[1] = true, true
	if err := w.tree(m.root, nil, nil, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := w.freelist(m.freelist); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// newestMeta finds the valid meta page with the highest transaction. The second
// one lies at the page size, which only a valid first one can tell.
func newestMeta(f io.ReaderAt, size int64) (boltMeta, error) {
	if size == 0 {
		return boltMeta{}, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	var best boltMeta
	found, magic := false, false
	for _, offset := range metaOffsets() {
		buf := make([]byte, pageHeader+metaLen)
		if _, err := f.ReadAt(buf, offset); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return boltMeta{}, fmt.Errorf("read meta page: %w", err)
		}
		m, isMeta, valid := decodeMeta(buf[pageHeader:])
		magic = magic || isMeta
		if valid && (!found || m.txid > best.txid) && (offset == 0 || offset == int64(m.pageSize)) {
			best, found = m, true
		}
	}
	switch {
	case found:
		return best, nil
	case magic:
		return boltMeta{}, fmt.Errorf("%w: both meta pages are bad", ErrCorrupt)
	}
	return boltMeta{}, fmt.Errorf("%w: it is not a bbolt file", ErrForeign)
}

func metaOffsets() []int64 {
	offsets := []int64{0}
	for size := int64(1 << 10); size <= 1<<16; size <<= 1 {
		offsets = append(offsets, size)
	}
	return offsets
}

func decodeMeta(b []byte) (m boltMeta, isMeta, valid bool) {
	le := binary.LittleEndian
	if le.Uint32(b) != boltMagic {
		return m, false, false
	}
	m = boltMeta{
		pageSize: le.Uint32(b[8:]), root: le.Uint64(b[16:]),
		freelist: le.Uint64(b[32:]), high: le.Uint64(b[40:]), txid: le.Uint64(b[48:]),
	}
	sum := fnv.New64a()
	sum.Write(b[:56])
	sane := le.Uint32(b[4:]) == boltVersion && m.pageSize >= 1<<10 && m.pageSize <= 1<<16 && m.pageSize&(m.pageSize-1) == 0
	return m, true, sane && sum.Sum64() == le.Uint64(b[56:])
}

// pageWalk visits every page once. seen is indexed by page number.
type pageWalk struct {
	f        io.ReaderAt
	pageSize int64
	high     uint64
	seen     []bool
}

// maxDepth is more levels than a file of any size has; it ends a walk that a
// damaged nesting of buckets would make endless.
const maxDepth = 64

// page reads a page with its overflow and marks it as used.
func (w *pageWalk) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d is out of range", id)
	}
	header := make([]byte, pageHeader)
	if _, err := w.f.ReadAt(header, int64(id)*w.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(binary.LittleEndian.Uint32(header[12:]))
	if got := binary.LittleEndian.Uint64(header); got != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, got)
	}
	if overflow >= w.high-id {
		return nil, fmt.Errorf("page %d runs past the end", id)
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	buf := make([]byte, int64(overflow+1)*w.pageSize)
	if _, err := w.f.ReadAt(buf, int64(id)*w.pageSize); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return buf, nil
}

// tree checks the page id and all below it: keys rise and stay in [low, high).
func (w *pageWalk) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is nested too deeply", id)
	}
	buf, err := w.page(id)
	if err != nil {
		return err
	}
	if err := w.node(buf, low, high, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// node checks one page's elements, and what they lead to. Inline buckets are
// nodes without a page of their own.
func (w *pageWalk) node(buf, low, high []byte, depth int) error {
	if len(buf) < pageHeader {
		return errors.New("cut short")
	}
	flags, count := binary.LittleEndian.Uint16(buf[8:]), int(binary.LittleEndian.Uint16(buf[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("has the unknown type %#x", flags)
	}
	if flags == flagBranch && count == 0 {
		return errors.New("is a branch without leaves")
	}
	elements, err := decodeElements(buf, flags, count)
	if err != nil {
		return err
	}
	for i, e := range elements {
		if i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 || bytes.Compare(e.key, low) < 0 ||
			high != nil && bytes.Compare(e.key, high) >= 0 {
			return errors.New("has keys out of order")
		}
		next := high
		if i+1 < len(elements) {
			next = elements[i+1].key
		}
		if err := w.element(e, flags, next, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *pageWalk) element(e element, flags uint16, next []byte, depth int) error {
	if flags == flagBranch {
		return w.tree(e.child, e.key, next, depth+1)
	}
	if e.flags&flagBucket == 0 {
		return nil
	}
	if len(e.value) < bucketHeader {
		return errors.New("has a bucket that is cut short")
	}
	if root := binary.LittleEndian.Uint64(e.value); root != 0 {
		return w.tree(root, nil, nil, depth+1)
	}
	return w.node(e.value[bucketHeader:], nil, nil, depth+1)
}

// element of a branch (child) or of a leaf (flags, value).
type element struct {
	key, value []byte
	flags      uint32
	child      uint64
}

func decodeElements(buf []byte, flags uint16, count int) ([]element, error) {
	if pageHeader+count*pageElement > len(buf) {
		return nil, errors.New("has more elements than room")
	}
	elements := make([]element, count)
	for i := range elements {
		at := pageHeader + i*pageElement
		raw := buf[at:]
		var e element
		var start, keyLen, valueLen uint64
		if flags == flagBranch {
			start, keyLen = uint64(binary.LittleEndian.Uint32(raw)), uint64(binary.LittleEndian.Uint32(raw[4:]))
			e.child = binary.LittleEndian.Uint64(raw[8:])
		} else {
			e.flags = binary.LittleEndian.Uint32(raw)
			start, keyLen = uint64(binary.LittleEndian.Uint32(raw[4:])), uint64(binary.LittleEndian.Uint32(raw[8:]))
			valueLen = uint64(binary.LittleEndian.Uint32(raw[12:]))
		}
		if start+keyLen+valueLen > uint64(len(raw)) {
			return nil, errors.New("has an element that runs past its end")
		}
		e.key, e.value = raw[start:start+keyLen], raw[start+keyLen:start+keyLen+valueLen]
		elements[i] = e
	}
	return elements, nil
}

// freelist checks that no page in use is listed as free. Files are written
// without a list while they are small.
func (w *pageWalk) freelist(id uint64) error {
	if id == boltNoList {
		return nil
	}
	buf, err := w.page(id)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(buf[8:]) != flagFreelist {
		return fmt.Errorf("page %d is not the free list", id)
	}
	count, ids := uint64(binary.LittleEndian.Uint16(buf[10:])), buf[pageHeader:]
	if count == 0xFFFF {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return errors.New("the free list runs past its end")
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		free := binary.LittleEndian.Uint64(ids)
		if free >= w.high || w.seen[free] {
			return fmt.Errorf("page %d is in use and listed as free", free)
		}
		w.seen[free] = true
	}
	return nil
}
