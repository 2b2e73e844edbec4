package volumes_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sublet.dev/host-agent/volumes"
)

// childRole is the environment variable that makes this binary make volumes until it
// is killed; it holds the store's directory.
const childRole = "SUBLET_TEST_VOLUMES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childRole); dir != "" {
		os.Exit(makeForEver(dir))
	}
	os.Exit(m.Run())
}

// makeForEver makes and removes volumes, and says so a step at a time.
func makeForEver(dir string) int {
	s, err := volumes.Open(dir)
	for i := 0; err == nil; i++ {
		name := fmt.Sprintf("pvc-%d-%d", os.Getpid(), i)
		fmt.Println("making")
		if _, err = s.Create(context.Background(), name, 0); err == nil && i%2 == 0 {
			fmt.Println("removing")
			if err = s.Remove(name); errors.Is(err, volumes.ErrInUse) {
				err = nil // by a mount namespace elsewhere: the parent finds it
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// open opens a store in a directory of the test's, and sees to it that nothing of
// it is left mounted.
func open(t *testing.T) (*volumes.Store, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := volumes.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mounts(t, dir) {
			if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", m, err)
			}
		}
	})
	return s, dir
}

// mounts lists what is mounted below a directory.
func mounts(t *testing.T, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var at []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); strings.HasPrefix(f[1], dir+"/") {
			at = append(at, f[1])
		}
	}
	return at
}

// loops lists the loop devices of files below a directory.
func loops(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, f := range files {
		if raw, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(raw), dir+"/") {
			of = append(of, f)
		}
	}
	return of
}

func create(t *testing.T, s *volumes.Store, name string, size int64) string {
	t.Helper()
	got, err := s.Create(t.Context(), name, size)
	if err != nil {
		t.Fatal(err)
	}
	if got != volumes.Size(size) {
		t.Errorf("%s has %d bytes, not %d", name, got, volumes.Size(size))
	}
	return s.Path(name)
}

// fill writes pattern into a file until the disk is full, and returns how many bytes
// there was room for.
func fill(t *testing.T, path string, pattern []byte) int64 {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat(pattern, 1<<16/len(pattern)+1)
	for total := int64(0); ; {
		n, err := f.Write(chunk)
		total += int64(n)
		if errors.Is(err, unix.ENOSPC) {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			return total
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFullVolumeIsFullForItselfAlone fills one of two volumes.
func TestAFullVolumeIsFullForItselfAlone(t *testing.T) {
	s, dir := open(t)
	a, b := create(t, s, "pvc-a", 32<<20), create(t, s, "pvc-b", 32<<20)
	if n := fill(t, filepath.Join(a, "file"), []byte("a")); n < 20<<20 || n > 32<<20 {
		t.Errorf("a volume of 32 MiB took %d bytes", n)
	}
	if err := os.WriteFile(filepath.Join(b, "file"), make([]byte, 8<<20), 0o600); err != nil {
		t.Errorf("its neighbour is full too: %v", err)
	}
	// What is reserved is there: the image of an empty volume has all of its blocks.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "images", "pvc-b.new"), &st); err != nil || st.Blocks*512 < 32<<20 {
		t.Errorf("the blocks of a volume are not reserved: %d, %v", st.Blocks, err)
	}
	for line := range strings.Lines(read(t, "/proc/self/mounts")) {
		if strings.Contains(line, dir) && (!strings.Contains(line, "nosuid") || !strings.Contains(line, "nodev")) {
			t.Errorf("mounted without nosuid, nodev: %s", line)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestNothingIsLeftForTheNext writes a pattern over a whole volume, removes it, and
// looks for it in the bytes of volumes that are made on the same disk afterwards.
func TestNothingIsLeftForTheNext(t *testing.T) {
	s, dir := open(t)
	secret := []byte("the first tenant's secret;")
	fill(t, filepath.Join(create(t, s, "pvc-a", 64<<20), "file"), secret)
	image := filepath.Join(dir, "images", "pvc-a.new")
	if !bytes.Contains(bytesOf(t, image), secret) {
		t.Fatal("the pattern is not in the volume that it was written to: the test sees nothing")
	}
	if err := whenFree(t, func() error { return s.Remove("pvc-a") }); err != nil {
		t.Fatal(err)
	}
	if left := append(mounts(t, dir), loops(t, dir)...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for i := range 3 {
		name := fmt.Sprintf("pvc-next-%d", i)
		path := create(t, s, name, 64<<20)
		if found, err := os.ReadDir(path); err != nil || len(found) > 0 {
			t.Errorf("a new volume is not empty: %v, %v", found, err)
		}
		if bytes.Contains(bytesOf(t, filepath.Join(dir, "images", name+".new")), secret) {
			t.Error("a new volume holds what another held")
		}
	}
}

func bytesOf(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestInUse: what pods have mounted is not taken from under them.
func TestInUse(t *testing.T) {
	s, dir := open(t)
	path := create(t, s, "pvc-a", 16<<20)
	pod := filepath.Join(dir, "pod")
	if err := os.Mkdir(pod, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(path, pod, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pod, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("pvc-a"); !errors.Is(err, volumes.ErrInUse) {
		t.Errorf("a volume in use was removed: %v", err)
	}
	// Growing works at once, or says that it has to wait.
	_, err := s.Grow(t.Context(), "pvc-a", 64<<20)
	if err != nil && !errors.Is(err, volumes.ErrInUse) {
		t.Fatal(err)
	}
	t.Logf("growing in use: %v", err)
	if got := read(t, filepath.Join(pod, "file")); got != "kept" {
		t.Errorf("the pod reads %q", got)
	}
	if err := unix.Unmount(pod, 0); err != nil {
		t.Fatal(err)
	}
	grow := func(bytes int64) (size int64, err error) {
		err = whenFree(t, func() error { size, err = s.Grow(t.Context(), "pvc-a", bytes); return err })
		return size, err
	}
	if size, err := grow(64 << 20); err != nil || size != 64<<20 {
		t.Errorf("it did not grow: %d, %v", size, err)
	}
	if got := read(t, filepath.Join(path, "file")); got != "kept" {
		t.Errorf("after growing the file reads %q", got)
	}
	if n := fill(t, filepath.Join(path, "more"), []byte("x")); n < 45<<20 {
		t.Errorf("the grown volume took %d bytes", n)
	}
	// It never shrinks.
	if size, err := grow(1); err != nil || size != 64<<20 {
		t.Errorf("it shrank: %d, %v", size, err)
	}
	if err := whenFree(t, func() error { return s.Remove("pvc-a") }); err != nil {
		t.Error(err)
	}
}

func TestMoreThanThereIs(t *testing.T) {
	s, dir := open(t)
	if _, err := s.Create(t.Context(), "pvc-a", 1<<50); !errors.Is(err, volumes.ErrNoRoom) {
		t.Errorf("a volume larger than the disk: %v", err)
	}
	create(t, s, "pvc-b", 16<<20)
	if _, err := s.Grow(t.Context(), "pvc-b", 1<<50); !errors.Is(err, volumes.ErrNoRoom) {
		t.Errorf("grown beyond the disk: %v", err)
	}
	if _, err := s.Create(t.Context(), "../escape", 0); err == nil {
		t.Error("a name with a path in it was taken")
	}
	entries, err := os.ReadDir(filepath.Join(dir, "images"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestKilled kills a process that makes and removes volumes, at many moments.
// Whatever is there afterwards is whole, and nothing half made is left.
func TestKilled(t *testing.T) {
	_, dir := open(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for round := range 12 {
		killAfter(t, exe, dir, 1+round%5, round%3 == 0)
		s, err := volumes.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if half, _ := filepath.Glob(filepath.Join(dir, "images", "*.tmp")); len(half) > 0 {
			t.Fatalf("half made: %v", half)
		}
		names, _, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			whole++
			if err := s.Mount(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.Path(name), "file"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := whenFree(t, func() error { return s.Remove(name) }); err != nil {
				t.Fatal(err)
			}
		}
		if left := append(mounts(t, dir), loops(t, dir)...); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	}
	if whole == 0 {
		t.Error("no process lived long enough to make a volume")
	}
}

// killAfter runs a child until it has said so many steps, and kills it: at once, or
// when its next tool runs.
func killAfter(t *testing.T, exe, dir string, steps int, tools bool) {
	t.Helper()
	child := exec.Command(exe)
	child.Env = append(os.Environ(), childRole+"="+dir)
	child.SysProcAttr = &unix.SysProcAttr{Setpgid: tools} // then its mkfs is killed with it
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for lines := 0; lines < steps; {
		if _, err := out.Read(one); err != nil {
			t.Fatalf("the child ended by itself: %v", err)
		}
		if one[0] == '\n' {
			lines++
		}
	}
	pid := child.Process.Pid
	if tools {
		pid = -pid
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed: always an error
}
