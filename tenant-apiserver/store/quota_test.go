package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestQuota fills a store up to its quota: what takes room is refused and leaves
// nothing, everything else works, and once something is deleted there is room
// again without anybody compacting.
func TestQuota(t *testing.T) {
	const quota, size = 1 << 20, 10_000
	s := openTemp(t, Options{QuotaBytes: quota})
	value := strings.Repeat("x", size)
	put := func(n int) error { return s.put(fmt.Sprint("key ", n), value) }
	n, err := 0, error(nil)
	for ; err == nil; n++ {
		err = put(n)
	}
	n-- // the one that was refused
	if !errors.Is(err, ErrQuota) || !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if want := quota / size; n < want*9/10 || n > want {
		t.Errorf("%d keys of %d bytes in %d", n, size, quota)
	}
	rev := mustRead(t, s, Read{Range: everything()}).Revision
	if _, err := s.Grant(t.Context(), 1, 60); err != nil {
		t.Errorf("what is small enough: %v", err)
	}
	if err := s.put("key 0", value); !errors.Is(err, ErrQuota) {
		t.Errorf("an update: %v", err)
	}
	if _, err := s.Txn(t.Context(), Txn{Then: []Op{
		{Delete: &Range{Key: []byte("key 0")}}, {Put: &Put{Key: []byte("large"), Value: []byte(value)}},
	}}); !errors.Is(err, ErrQuota) {
		t.Errorf("a transaction: %v", err)
	}
	if res := mustRead(t, s, Read{Range: everything()}); res.Count != int64(n) || res.Revision != rev {
		t.Errorf("%d keys at %d, want %d at %d", res.Count, res.Revision, n, rev)
	}
	for i := range n / 2 {
		mustDelete(t, s, fmt.Sprint("key ", i))
	}
	await(t, func() bool { return put(0) == nil })
	for i := range n/2 - 2 {
		if err := put(i); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	checkData(t, s)
	for err, n = nil, 1000; err == nil; n++ {
		err = put(n)
	}
	if !errors.Is(err, ErrQuota) {
		t.Errorf("full again: %v", err)
	}
	s.SetQuota(2 * quota)
	if err := put(1000); err != nil {
		t.Errorf("with a larger quota: %v", err)
	}
}

// await waits for something that comes by itself.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for !is() {
		select {
		case <-t.Context().Done():
			t.Fatal("it never came")
		case <-time.After(time.Millisecond):
		}
	}
}

// checkData wants the running count of bytes to be what there is.
func checkData(t *testing.T, s *Store) {
	t.Helper()
	err := s.view(context.Background(), func(snap snapshot) error {
		if n := snap.measure(); n != snap.data {
			return fmt.Errorf("%d bytes are counted, %d are there", snap.data, n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// smallDisk mounts a file system of its own kind on dir, in this process only.
func smallDisk(dir, kind string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if kind == "tmpfs" {
		return syscall.Mount("tmpfs", dir, kind, 0, "size=12m")
	}
	image := dir + ".img"
	for _, args := range [][]string{
		{"truncate", "-s", "24M", image},
		{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	return nil
}

// childCrowded has a store on a small disk that somebody else fills up.
func childCrowded(where string) (err error) {
	kind, dir, _ := strings.Cut(where, ":")
	if err := smallDisk(dir, kind); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	o := Options{Ballast: true, pace: defaultPace}
	o.pace.layerAge, o.pace.retry = 10*time.Millisecond, 10*time.Millisecond
	path, other := filepath.Join(dir, "store.db"), filepath.Join(dir, "other")
	s, err := Open(path, o)
	if err != nil {
		return err
	}
	value := strings.Repeat("x", 10_000)
	n := 0
	for ; n < 200; n++ {
		if err := s.put(fmt.Sprint("key ", n), value); err != nil {
			return err
		}
	}
	// A checkpoint that meets a full disk while it is being filled gives up its
	// ballast to who fills it.
	if err := s.flush(context.Background()); err != nil {
		return err
	}
	if err := fillUp(other); err != nil {
		return err
	}
	for ; err == nil; n++ {
		err = s.put(fmt.Sprint("key ", n), value)
	}
	n--
	if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrQuota) || s.Err() != nil {
		return fmt.Errorf("full disk: %w", err)
	}
	if err := s.flush(context.Background()); err != nil {
		return fmt.Errorf("what was acknowledged does not come into the file: %w", err)
	}
	gone := 0
	drop := func(upTo int) error {
		for ; gone < upTo; gone++ {
			if _, err := s.Txn(context.Background(), Txn{Then: []Op{{Delete: &Range{Key: fmt.Append(nil, "key ", gone)}}}}); err != nil {
				return fmt.Errorf("delete %d of %d: %w", gone, n, err)
			}
		}
		res, err := s.Read(context.Background(), Read{Range: everything(), CountOnly: true})
		if err == nil && res.Count != int64(n-gone) {
			err = fmt.Errorf("%d keys, want %d", res.Count, n-gone)
		}
		return err
	}
	if err := drop(n / 4); err != nil {
		return err
	}
	if err := s.flush(context.Background()); err != nil {
		return fmt.Errorf("deletes do not come into the file: %w", err)
	}
	if err := fillUp(other); err != nil { // what the ballast left
		return err
	}
	if err := drop(n / 2); err != nil {
		return err
	}
	// The next process finds the disk as full.
	if err := s.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	if err := fillUp(other); err != nil {
		return err
	}
	if s, err = Open(path, o); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	if err := drop(n * 3 / 4); err != nil {
		return err
	}
	if err := os.Remove(other); err != nil {
		return err
	}
	for s.put("room", value) != nil { // the test's time is the bound
		<-time.After(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := countAfterOpen(path, n-gone+1); err != nil {
		return err
	}
	info, err := os.Stat(path + ".ballast")
	if err == nil && info.Size() < minBallast {
		err = fmt.Errorf("the ballast has %d bytes", info.Size())
	}
	return err
}

// fillUp takes all blocks that there are.
func fillUp(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return f.Close()
}

// TestCrowdedDisk has the disk filled by others: nothing acknowledged is lost,
// deletes work all the time and over a restart, and with the room puts come back.
func TestCrowdedDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for small file systems in a mount namespace of its own")
	}
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + kind); kind != "tmpfs" && err != nil {
				t.Skipf("needs mkfs.%s", kind)
			}
			dir := filepath.Join(t.TempDir(), "disk")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := child(t, "crowded", kind+":"+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			if out, err := cmd.Output(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
		})
	}
}
