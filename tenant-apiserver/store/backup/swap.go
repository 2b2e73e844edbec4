package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

// swap gives the old store another name and the new one its name. The name never
// stands for nothing: the old file gets its second name as a link, and the new
// one replaces the first.
func (t Target) swap(tmp string) (kept string, err error) {
	kept, err = keep(t.Path, t.Now)
	if err != nil {
		return "", fmt.Errorf("keep the old store: %w", err)
	}
	if err := keepLog(t.Path, kept, t.Now); err != nil {
		return kept, fmt.Errorf("keep the old store's log: %w", err)
	}
	t.reached(stepKept)
	if err := os.Rename(tmp, t.Path); err != nil {
		return kept, err
	}
	t.reached(stepSwap)
	return kept, syncDir(filepath.Dir(t.Path))
}

// keepLog moves the log of a store that could not be opened to where its file is
// kept; beside the new file it would be taken for damage. A store that was
// closed has none.
func keepLog(path, kept string, now time.Time) error {
	if kept == "" {
		kept = keptName(path, now)
	}
	logs, err := store.LogFiles(path)
	for _, log := range logs {
		err = errors.Join(err, os.Rename(log, kept+strings.TrimPrefix(log, path)))
	}
	return err
}

func keptName(path string, now time.Time) string {
	if now.IsZero() {
		now = time.Now()
	}
	return path + ".before-restore-" + now.UTC().Format("20060102T150405Z")
}

// keep links the file at path, if there is one, to a name that says when.
func keep(path string, now time.Time) (string, error) {
	base := keptName(path, now)
	name := base
	for n := 2; ; n++ {
		err := os.Link(path, name)
		switch {
		case err == nil:
			return name, syncDir(filepath.Dir(path))
		case errors.Is(err, fs.ErrNotExist):
			return "", nil
		case !errors.Is(err, fs.ErrExist):
			return "", err
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
