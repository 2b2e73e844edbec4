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
// stands for nothing: the old file gets its second name as a link, and the new one
// replaces the first. A log of the old store (one that could not be opened; others
// have none) goes last: beside the new file it is refused, while the old file
// without it would be an older state.
func (t Target) swap(tmp string) (kept string, err error) {
	kept, err = keep(t.Path, t.Now)
	if err != nil {
		return "", fmt.Errorf("keep the old store: %w", err)
	}
	logs, err := keepLog(t.Path, kept, t.Now)
	if err != nil {
		return kept, fmt.Errorf("keep the old store's log: %w", err)
	}
	t.reached(stepKept)
	if err := os.Rename(tmp, t.Path); err != nil {
		return kept, err
	}
	t.reached(stepSwap)
	for _, log := range logs {
		err = errors.Join(err, os.Remove(log))
	}
	return kept, errors.Join(err, syncDir(filepath.Dir(t.Path)))
}

// keepLog links the old store's log to where its file is kept, and returns where it
// was.
func keepLog(path, kept string, now time.Time) ([]string, error) {
	if kept == "" {
		kept = keptName(path, now)
	}
	logs, err := store.LogFiles(path)
	for _, log := range logs {
		err = errors.Join(err, os.Link(log, kept+strings.TrimPrefix(log, path)))
	}
	return logs, err
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
