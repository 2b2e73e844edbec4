package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// AuditURL is where a tenant reads its own audit log: a non-resource path, which
	// the roles of the tenant give to its administrators.
	AuditURL = "/logs/audit"

	// followPause is how often a log that is followed is looked at.
	followPause = 250 * time.Millisecond
	// auditReaders is how many requests read the log of a tenant at a time.
	auditReaders = 4
	// tailBlock is how much of a file is read at once, from its end.
	tailBlock = 64 << 10
)

// AuditQuery says what of an audit log is read.
type AuditQuery struct {
	// Limit is how many of the last events; 0: all there are.
	Limit int
	// Follow goes on with what is recorded from then on, until the context ends.
	Follow bool
}

// CopyAudit copies events of the audit log at path, the oldest first, one JSON
// document a line. It tells whether there was a log at all.
func CopyAudit(ctx context.Context, w io.Writer, path string, q AuditQuery) (some bool, err error) {
	files, err := openAudit(path)
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	if err == nil && q.Limit > 0 {
		files, err = seekLast(files, q.Limit)
	}
	if err != nil {
		return false, fmt.Errorf("read the audit log: %w", err)
	}
	for _, f := range files {
		if ctx.Err() != nil {
			return true, nil
		}
		if _, err := io.Copy(w, f); err != nil {
			return true, fmt.Errorf("read the audit log: %w", err)
		}
	}
	if !q.Follow {
		return len(files) > 0, nil
	}
	var last *os.File
	if len(files) > 0 {
		last = files[len(files)-1]
	}
	if err := follow(ctx, w, path, last); err != nil {
		return true, fmt.Errorf("read the audit log: %w", err)
	}
	return true, nil
}

// openAudit opens the files of a log, the oldest first. The youngest is opened first:
// one that is moved on meanwhile is met again, and known by that.
func openAudit(path string) (files []*os.File, err error) {
	for n := 0; n <= AuditFiles; n++ {
		at := path
		if n > 0 {
			at = AuditPath(path, n)
		}
		f, err := os.Open(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		if len(files) > 0 && sameFile(f, files[0]) {
			if err := f.Close(); err != nil {
				return files, err
			}
			continue
		}
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// seekLast sets files to where their last n lines begin, and closes those that have
// none of them.
func seekLast(files []*os.File, n int) ([]*os.File, error) {
	for i := len(files) - 1; i >= 0; i-- {
		found, err := seekLines(files[i], n)
		if err != nil {
			return files, err
		}
		if n -= found; n > 0 {
			continue
		}
		for _, f := range files[:i] {
			err = errors.Join(err, f.Close())
		}
		return files[i:], err
	}
	return files, nil
}

// seekLines sets a file to where its last n lines begin, or to its beginning, and
// returns how many lines there are from there on.
func seekLines(f *os.File, n int) (lines int, err error) {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	block := make([]byte, tailBlock)
	for at > 0 {
		size := min(at, tailBlock)
		at -= size
		if _, err := f.ReadAt(block[:size], at); err != nil {
			return 0, err
		}
		for i := size; i > 0; {
			if i = int64(bytes.LastIndexByte(block[:i], '\n')); i < 0 {
				break
			}
			if lines++; lines > n {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return n, err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return lines, err
}

// follow copies what is appended to a log until ctx ends. f is its youngest file as
// far as it was read, nil when there was none. When another has taken its place, it
// goes on with that one, after the end of the first.
func follow(ctx context.Context, w io.Writer, path string, f *os.File) error {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	if f != nil {
		if err := followFile(ctx, w, f, path, tick.C); err != nil || ctx.Err() != nil {
			return err
		}
	}
	for {
		next, err := os.Open(path)
		if err == nil {
			err = errors.Join(followFile(ctx, w, next, path, tick.C), next.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// followFile copies an open file until another has its name, or ctx ends.
func followFile(ctx context.Context, w io.Writer, f *os.File, path string, tick <-chan time.Time) error {
	for {
		replaced, err := isReplaced(f, path) // before the copy: what was written till then is read
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		if replaced {
			return nil
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}

// isReplaced says whether the file's name is another's by now, or nobody's.
func isReplaced(f *os.File, path string) (bool, error) {
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !os.SameFile(own, now), err
}

// auditReader answers AuditURL: the tenant's log for those whom the tenant's roles
// allow it. Query parameters: limit, follow.
type auditReader struct {
	path    string
	log     *slog.Logger
	readers atomic.Int64
}

// ServeHTTP implements http.Handler.
func (a *auditReader) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the audit log can only be read")
		return
	}
	q, err := auditQuery(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	defer a.readers.Add(-1)
	if a.readers.Add(1) > auditReaders {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, fmt.Sprintf("%d requests read the audit log already: try again", auditReaders))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := flushing{w, http.NewResponseController(w)}
	_ = out.response.Flush() // what cannot be flushed is sent at the end
	if _, err := CopyAudit(r.Context(), out, a.path, q); err != nil && r.Context().Err() == nil {
		a.log.Error("a tenant's audit log could not be read to its end", "error", err)
	}
}

func auditQuery(r *http.Request) (q AuditQuery, err error) {
	if s := r.FormValue("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 1 {
			return q, errors.New("limit must be a number of events, at least 1")
		}
	}
	if s := r.FormValue("follow"); s != "" {
		if q.Follow, err = strconv.ParseBool(s); err != nil {
			return q, errors.New("follow must be true or false")
		}
	}
	return q, nil
}

// flushing sends what is written at once.
type flushing struct {
	io.Writer
	response *http.ResponseController
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		_ = f.response.Flush() // what cannot be flushed is sent at the end
	}
	return n, err
}
