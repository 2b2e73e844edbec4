package cell

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sublet.dev/tenant-apiserver/measure"
	"sublet.dev/tenant-apiserver/server"
)

// What a control plane leaves to the next is in the tenant's directory while the tenant
// sleeps, beside the record, and nowhere in memory. It is there once: whoever wakes takes
// it away, so that a control plane that dies leaves nothing old to the next.

// maxLeft is how many bytes a file of it may have.
const maxLeft = measure.MaxCarried

// left are the files of it, each with its place in what is carried over.
func left(dir string, c *server.Carried) map[string]*[]byte {
	return map[string]*[]byte{
		filepath.Join(dir, "asleep.metrics"): &c.Metrics,
		filepath.Join(dir, "asleep.serving"): &c.Serving,
	}
}

// leave keeps what is carried over for the next control plane.
func leave(dir string, c server.Carried) error {
	var err error
	for path, data := range left(dir, &c) {
		if len(*data) > 0 {
			err = errors.Join(err, replace(path, *data))
		}
	}
	if err != nil {
		return fmt.Errorf("keep what is needed after the sleep: %w", err)
	}
	return nil
}

// replace writes a file as a whole. What a crash may make of it is for the reader to see.
func replace(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// takeLeft takes away what the control plane before has left, if there is anything. An
// error says what of it is lost.
func takeLeft(dir string) (c server.Carried, ok bool, err error) {
	for path, into := range left(dir, &c) {
		data, readErr := readBounded(path)
		if errors.Is(readErr, fs.ErrNotExist) {
			continue
		}
		ok = true
		if readErr == nil {
			readErr = os.Remove(path)
		}
		if readErr != nil { // what stays would be taken twice
			err = errors.Join(err, fmt.Errorf("take what was left before the sleep: %w", readErr), os.RemoveAll(path))
			continue
		}
		*into = data
	}
	return c, ok, err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLeft+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxLeft {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxLeft)
	}
	return data, nil
}
