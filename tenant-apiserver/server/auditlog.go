package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

const (
	// auditSize is how large an audit log's file grows before the next is begun.
	auditSize = 20 << 20
	// AuditFiles is how many old ones are kept: the path with .1 (the youngest) to
	// .AuditFiles at its end.
	AuditFiles = 4
)

// auditFile is an audit log in files of a bounded size. Nothing is made before the
// first write.
type auditFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// Write implements io.Writer. It keeps what it is given in one file.
func (a *auditFile) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil && a.size > 0 && a.size+int64(len(p)) > a.max {
		if err := a.rotate(); err != nil {
			return 0, fmt.Errorf("begin another audit log: %w", err)
		}
	}
	if a.file == nil {
		if err := a.open(); err != nil {
			return 0, fmt.Errorf("open the audit log: %w", err)
		}
	}
	n, err := a.file.Write(p)
	a.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write the audit log: %w", err)
	}
	return n, nil
}

// open goes on with the file there is. The caller must hold mu.
func (a *auditFile) open() error {
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a.file, a.size = f, info.Size()
	return nil
}

// rotate puts the file behind those before it, and drops the oldest. The caller
// must hold mu.
func (a *auditFile) rotate() error {
	if err := a.closeFile(); err != nil {
		return err
	}
	for n := AuditFiles; n > 0; n-- {
		from := a.path
		if n > 1 {
			from = AuditPath(a.path, n-1)
		}
		if err := os.Rename(from, AuditPath(a.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// AuditPath is where the nth file before the present one is.
func AuditPath(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

func (a *auditFile) closeFile() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file, a.size = nil, 0
	return err
}

// Close closes the file. A nil log is closed already.
func (a *auditFile) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closeFile()
}
