package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// checkContents reads every value of every bucket of the file.
func checkContents(tx *bolt.Tx) (head, error) {
	h, err := checkFileOnly(tx)
	if err != nil {
		return head{}, err
	}
	return h, snapshot{tables: &tables{tx: tx}, head: h}.checkAll()
}

// checkFileOnly says whether the file can be understood: the head comes first,
// and then the buckets.
func checkFileOnly(tx *bolt.Tx) (head, error) {
	meta := tx.Bucket(bucketMeta.name())
	if meta == nil {
		return head{}, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	h, err := readHead(meta)
	if err != nil {
		return head{}, err
	}
	if h.format != format {
		return head{}, fmt.Errorf("%w: %d, this release knows %d", ErrNewerFormat, h.format, format)
	}
	for _, b := range counted {
		if tx.Bucket(b.name()) == nil {
			return head{}, fmt.Errorf("%w: it has no bucket %s", ErrCorrupt, b)
		}
	}
	return h, nil
}

// checkAll wants as many good values as the head says.
func (s snapshot) checkAll() error {
	for i, b := range counted {
		n := int64(0)
		c := s.cursor(b)
		var last []byte
		for k, v := c.seek(nil); k != nil; k, v = c.next() {
			if err := checkValue(b, k, v); err != nil {
				return err
			}
			n, last = n+1, k
		}
		if n != s.head.sizes[i] {
			return fmt.Errorf("%w: bucket %s has %d entries of %d", ErrCorrupt, b, n, s.head.sizes[i])
		}
		if p, err := decodePos(last); b == bucketLog && n > 0 && (err != nil || p.rev > s.head.rev) {
			return fmt.Errorf("%w: the log is ahead of its head", ErrCorrupt)
		}
	}
	return nil
}

// checkValue checks the seal and the form of one value.
func checkValue(b bucketID, key, sealed []byte) error {
	body, err := unseal(b, key, sealed)
	if err != nil {
		return err
	}
	switch b {
	case bucketMeta:
		_, err = decodeHead(body)
	case bucketCur:
		_, err = decodeEntry(body)
	case bucketLog:
		_, err = decodeRecord(body)
	case bucketLease:
		_, err = decodeLease(body)
	}
	if err != nil {
		return fmt.Errorf("%w: %s/%x: %w", ErrCorrupt, b, key, err)
	}
	return nil
}

func readHead(meta *bolt.Bucket) (head, error) {
	sealed := meta.Get(keyHead)
	if sealed == nil {
		return head{}, fmt.Errorf("%w: it is a bbolt file of another program", ErrForeign)
	}
	return openHead(sealed)
}

func openHead(sealed []byte) (head, error) {
	body, err := unseal(bucketMeta, keyHead, sealed)
	if err != nil {
		return head{}, err
	}
	h, err := decodeHead(body)
	if err != nil {
		return head{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return h, nil
}
