package store

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// call is one system call of a trace by strace: its entry and, in another
// traceCall, its return.
type traceCall struct {
	pid    string
	name   string
	args   []string // strings are decoded
	back   bool     // it has returned, with result
	result int64
}

func (c traceCall) String() string {
	if c.back {
		return c.name + " returned"
	}
	return c.name
}

var (
	wholeCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	beganCall   = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	resumedCall = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+)`)
)

// readTrace returns the entries and returns of a trace in their order.
func readTrace(path string) ([]traceCall, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []traceCall
	began := map[string]traceCall{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := wholeCall.FindStringSubmatch(line); m != nil {
			c, err := newTraceCall(m[1], m[2], m[3])
			if err != nil {
				return nil, err
			}
			all = append(all, c, c.returned(m[4]))
		} else if m := beganCall.FindStringSubmatch(line); m != nil {
			c, err := newTraceCall(m[1], m[2], m[3])
			if err != nil {
				return nil, err
			}
			all, began[c.pid] = append(all, c), c
		} else if m := resumedCall.FindStringSubmatch(line); m != nil && began[m[1]].name == m[2] {
			all = append(all, began[m[1]].returned(m[3]))
		} else if !strings.Contains(line, " --- SIG") && !strings.Contains(line, "+++ exited") {
			return nil, fmt.Errorf("cannot read %.200q", line)
		}
	}
	return all, lines.Err()
}

func (c traceCall) returned(result string) traceCall {
	c.back = true
	c.result, _ = strconv.ParseInt(result, 10, 64)
	return c
}

// newTraceCall splits the arguments; -xx prints all strings as \x.. and so
// without commas.
func newTraceCall(pid, name, args string) (traceCall, error) {
	c := traceCall{pid: pid, name: name}
	for _, a := range strings.Split(args, ", ") {
		if text, quoted := strings.CutPrefix(a, `"`); quoted {
			if !strings.HasSuffix(text, `"`) {
				return c, fmt.Errorf("%s: an argument is cut: %.80s", name, a)
			}
			b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSuffix(text, `"`), `\x`, ""))
			if err != nil {
				return c, err
			}
			a = string(b)
		}
		c.args = append(c.args, a)
	}
	return c, nil
}

// disk is a folder as the power would leave it: of each file what was flushed,
// and what was written since.
type disk struct {
	root   string
	open   map[string]*inode // by descriptor; the folder itself is an inode without bytes
	names  map[string]*inode // as a running system sees them
	kept   map[string]*inode // as they were when the folder was flushed last
	moves  []map[string]*inode
	folder *inode
	begun  map[string]int // by pid: how many changes of the file there were when its flush began
}

type inode struct {
	flushed []byte
	pending []edit
	dropped int // how many edits were flushed, since descriptors count from the first
}

// edit is a write, or a truncation when data is nil.
type edit struct {
	at   int64
	data []byte
}

func newDisk(root string) *disk {
	return &disk{
		root: root, open: map[string]*inode{}, names: map[string]*inode{}, kept: map[string]*inode{},
		folder: &inode{}, begun: map[string]int{},
	}
}

// run takes a call; what the process printed is returned.
func (d *disk) run(c traceCall) (printed string, ok bool) {
	fd := c.args[0]
	if !c.back {
		switch f := d.open[fd]; {
		case c.name == "write" && fd == "1":
			return c.args[1], true // was acknowledged before it is printed
		case f == nil:
		case c.name == "close": // another thread may get the number before this one returns
			delete(d.open, fd)
		case c.name == "fsync", c.name == "fdatasync":
			d.begun[c.pid] = d.changes(f)
		case c.name == "pwrite64":
			at, _ := strconv.ParseInt(c.args[3], 10, 64)
			f.pending = append(f.pending, edit{at, []byte(c.args[1])})
		}
		return "", false
	}
	if c.result < 0 {
		return "", false
	}
	switch f := d.open[fd]; c.name {
	case "openat":
		d.opened(c)
	case "fsync", "fdatasync":
		if f != nil {
			d.flush(f, d.begun[c.pid])
		}
	case "ftruncate":
		if size, _ := strconv.ParseInt(c.args[1], 10, 64); f != nil {
			f.pending = append(f.pending, edit{at: size})
		}
	case "rename":
		d.rename(c.args[0], c.args[1])
	case "renameat", "renameat2":
		d.rename(c.args[1], c.args[3])
	case "unlink":
		d.unlink(c.args[0])
	case "unlinkat":
		d.unlink(c.args[1])
	}
	return "", false
}

// name of a path in the folder, "" for one elsewhere.
func (d *disk) name(path string) string {
	if filepath.Dir(path) != d.root {
		return ""
	}
	return filepath.Base(path)
}

func (d *disk) opened(c traceCall) {
	fd := strconv.FormatInt(c.result, 10)
	delete(d.open, fd)
	if c.args[1] == d.root {
		d.open[fd] = d.folder
		return
	}
	name := d.name(c.args[1])
	if name == "" {
		return
	}
	f := d.names[name]
	switch {
	case f == nil:
		f = &inode{}
		d.move(func(names map[string]*inode) { names[name] = f })
	case strings.Contains(c.args[2], "O_TRUNC"):
		f.pending = append(f.pending, edit{})
	}
	d.open[fd] = f
}

// move changes names. The folder keeps all stages: after a cut it has one of them.
func (d *disk) move(change func(map[string]*inode)) {
	d.names = maps.Clone(d.names)
	change(d.names)
	d.moves = append(d.moves, d.names)
}

func (d *disk) rename(from, to string) {
	if from, to = d.name(from), d.name(to); from != "" && to != "" {
		d.move(func(names map[string]*inode) { names[to] = names[from]; delete(names, from) })
	}
}

func (d *disk) unlink(path string) {
	if name := d.name(path); name != "" {
		d.move(func(names map[string]*inode) { delete(names, name) })
	}
}

func (d *disk) changes(f *inode) int {
	if f == d.folder {
		return len(d.moves) + f.dropped
	}
	return len(f.pending) + f.dropped
}

// flush makes last what was there when the flush began.
func (d *disk) flush(f *inode, begun int) {
	n := begun - f.dropped
	if n <= 0 {
		return
	}
	f.dropped = begun
	if f == d.folder {
		d.kept, d.moves = d.moves[n-1], d.moves[n:]
		return
	}
	for _, e := range f.pending[:n] {
		f.flushed = e.apply(f.flushed)
	}
	f.pending = slices.Clone(f.pending[n:])
}

func (e edit) apply(b []byte) []byte {
	if e.data == nil {
		if int(e.at) <= len(b) {
			return b[:e.at]
		}
		return append(b, make([]byte, int(e.at)-len(b))...)
	}
	if end := int(e.at) + len(e.data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[e.at:], e.data)
	return b
}

// cutModes are what may be on the disk of what was not flushed.
var cutModes = []cutMode{"nothing", "everything", "some writes", "some sectors"}

type cutMode string

// image is a folder after a cut.
type image map[string][]byte

const sector = 512

func (d *disk) cut(r *rand.Rand, mode cutMode) image {
	names := d.kept
	if n := len(d.moves); n > 0 && mode == "everything" {
		names = d.moves[n-1]
	} else if n > 0 && mode != "nothing" {
		if i := r.IntN(n + 1); i > 0 {
			names = d.moves[i-1]
		}
	}
	out := image{}
	for name, f := range names {
		b := slices.Clone(f.flushed)
		for _, e := range f.pending {
			switch {
			case mode == "nothing", mode == "some writes" && r.IntN(2) == 0:
			case mode == "some sectors" && e.data != nil:
				b = e.torn(r, b)
			default:
				b = e.apply(b)
			}
		}
		out[name] = b
	}
	return out
}

// torn applies some of the sectors that e writes to.
func (e edit) torn(r *rand.Rand, b []byte) []byte {
	for from := 0; from < len(e.data); {
		to := min(len(e.data), from+sector-int((e.at+int64(from))%sector))
		if r.IntN(2) == 0 {
			b = edit{e.at + int64(from), e.data[from:to]}.apply(b)
		}
		from = to
	}
	return b
}

func (i image) write(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, b := range i {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
