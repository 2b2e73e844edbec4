package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A frame is one group's changes on their way to disk:
//
//	line(8) lap(8) seq(8) length(4) crc(4)  changes...  zeros up to a multiple of 8
//
// line is the file's, so that no other file's frame and no value of a tenant's
// passes for one. lap is the seq of the first frame of the same use of a
// segment: what lies behind the end was written in an earlier lap. The checksum
// covers everything but itself and the zeros.
type frame struct {
	lap, seq int64
	changes  []byte
}

const (
	frameHeader = 32
	frameAlign  = 8
)

// newFrame returns a buffer for changes of about n bytes.
func newFrame(n int) []byte { return make([]byte, frameHeader, frameHeader+n) }

// sealFrame completes what newFrame began.
func sealFrame(b []byte, line uint64, lap, seq int64) []byte {
	be := binary.BigEndian
	be.PutUint64(b, line)
	be.PutUint64(b[8:], uint64(lap))
	be.PutUint64(b[16:], uint64(seq))
	be.PutUint32(b[24:], uint32(len(b)-frameHeader))
	be.PutUint32(b[28:], frameSum(b))
	return append(b, make([]byte, frameSize(len(b))-len(b))...)
}

func frameSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:frameHeader-4], castagnoli), castagnoli, b[frameHeader:])
}

func frameSize(n int) int { return (n + frameAlign - 1) / frameAlign * frameAlign }

// openFrame reads the frame that b begins with; it shares memory with b. false:
// there is no whole frame of this line.
func openFrame(b []byte, line uint64) (f frame, size int, ok bool) {
	be := binary.BigEndian
	if len(b) < frameHeader || be.Uint64(b) != line {
		return frame{}, 0, false
	}
	n := uint64(be.Uint32(b[24:]))
	if n > uint64(len(b)-frameHeader) || be.Uint32(b[28:]) != frameSum(b[:frameHeader+n]) {
		return frame{}, 0, false
	}
	f = frame{lap: int64(be.Uint64(b[8:])), seq: int64(be.Uint64(b[16:])), changes: b[frameHeader : frameHeader+n]}
	return f, min(frameSize(frameHeader+int(n)), len(b)), true
}

// A change in a frame:
//
//	bucket(1, 0x80: removed) key length(2) value length(4) key value
const (
	changeHeader  = 7
	changeRemoved = 0x80
)

// beginChange appends a change without its value, which the caller appends
// before endChange.
func beginChange(b []byte, id bucketID, key []byte) []byte {
	b = append(b, byte(id), byte(len(key)>>8), byte(len(key)), 0, 0, 0, 0)
	return append(b, key...)
}

// endChange seals the change that begins at from and returns it; it shares
// memory with b.
func endChange(b []byte, from int) ([]byte, *change) {
	id := bucketID(b[from])
	at := from + changeHeader + int(binary.BigEndian.Uint16(b[from+1:]))
	key := b[from+changeHeader : at : at]
	b = binary.BigEndian.AppendUint32(b, checksum(id, key, b[at:]))
	binary.BigEndian.PutUint32(b[from+3:], uint32(len(b)-at))
	return b, &change{bucket: id, key: b[from+changeHeader : at : at], value: b[at:len(b):len(b)]}
}

// removal appends the removal of a key.
func removal(b []byte, id bucketID, key []byte) ([]byte, *change) {
	from := len(b)
	b = beginChange(b, id, key)
	b[from] |= changeRemoved
	return b, &change{bucket: id, key: b[from+changeHeader : len(b) : len(b)]}
}

// readChange reads the change that b begins with; it shares memory with b.
func readChange(b []byte) (c *change, rest []byte, err error) {
	if len(b) < changeHeader {
		return nil, nil, fmt.Errorf("change: %w", errDecode)
	}
	id, removed := bucketID(b[0]&^changeRemoved), b[0]&changeRemoved != 0
	keyLen, valueLen := uint64(binary.BigEndian.Uint16(b[1:])), uint64(binary.BigEndian.Uint32(b[3:]))
	b = b[changeHeader:]
	if int(id) >= buckets || keyLen == 0 || keyLen+valueLen > uint64(len(b)) || removed != (valueLen == 0) {
		return nil, nil, fmt.Errorf("change: %w", errDecode)
	}
	c = &change{bucket: id, key: b[:keyLen:keyLen]}
	if !removed {
		c.value = b[keyLen : keyLen+valueLen : keyLen+valueLen]
	}
	return c, b[keyLen+valueLen:], nil
}

// errBroken says that a frame has changes that no group makes.
var errBroken = errors.New("its changes do not join what is before them")

// replay puts the changes of a frame into l, which lies over what h is the head
// of, and returns the head after it.
func (f frame) replay(l *layer, h head) (head, error) {
	rev, next := h.rev, h
	for rest := f.changes; len(rest) > 0; {
		c, more, err := readChange(rest)
		if err != nil {
			return head{}, err
		}
		if c.value != nil {
			if err := checkValue(c.bucket, c.key, c.value); err != nil {
				return head{}, err
			}
		}
		switch {
		case c.bucket == bucketMeta:
			if next, err = openHead(c.value); err != nil {
				return head{}, err
			}
		case c.bucket == bucketLog && c.value != nil:
			p, err := decodePos(c.key)
			if err != nil || p.rev != rev && p.rev != rev+1 {
				return head{}, fmt.Errorf("revision %d after %d: %w", p.rev, rev, errBroken)
			}
			rev = p.rev
		}
		l.set(c)
		rest = more
	}
	l.bytes += len(f.changes)
	if next.seq != f.seq || next.rev != rev || next.line != h.line || h.id != "" && next.id != h.id {
		return head{}, fmt.Errorf("head of revision %d after %d: %w", next.rev, rev, errBroken)
	}
	return next, nil
}
