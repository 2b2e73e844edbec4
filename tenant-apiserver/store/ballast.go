package store

import (
	"errors"
	"os"
	"syscall"
	"time"
)

const (
	// minBallast is what an idle store keeps: enough to bring what a small log
	// holds into the file, and for the pages that deletes and compactions copy.
	minBallast = 1 << 20
	// ballastRetry is how often a store tries to get its ballast back.
	ballastRetry = time.Second
)

// ballast is a file without contents that keeps disk blocks for the time when
// there are no others: it is emptied when the disk is full, so that what was
// acknowledged can be brought into the file and deletes go on, and filled again
// when there is room. It grows and shrinks with the log. It may be removed at
// any time; a file system that cannot give blocks to a file does without.
type ballast struct {
	path string // "": none is kept
	size int64  // of the blocks it has
	want int64  // what it is to have
	next int64  // when it was emptied: the time of the next try, unix nanoseconds
}

func ballastPath(path string) string { return path + ".ballast" }

// spent says that it was emptied and is not back yet.
func (b *ballast) spent() bool { return b.next != 0 }

// ballastFor is what it has more for so many bytes of log.
func ballastFor(log int64) int64 { return log / 2 * 3 }

// hold gets blocks for what size bytes of log need. An error that isNoSpace says
// that there are none.
func (b *ballast) hold(log int64) error {
	b.want = minBallast + ballastFor(log)
	if b.path == "" || b.spent() || b.size >= b.want {
		return nil
	}
	return b.fill()
}

// fill gets the blocks that are wanted.
func (b *ballast) fill() error {
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, b.want)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = nil
	}
	if err != nil {
		// Some of the blocks may have been given.
		return errors.Join(err, f.Truncate(b.size), f.Close())
	}
	b.size, b.next = b.want, 0
	fault(faultBallastFilled)
	return f.Close()
}

// cut gives back what the log does not need any more.
func (b *ballast) cut(log int64) error {
	if b.want = minBallast + ballastFor(log); b.path == "" || b.size <= b.want {
		return nil
	}
	b.size = b.want
	if err := os.Truncate(b.path, b.want); err != nil {
		return err
	}
	fault(faultBallastCut)
	return nil
}

// spend empties it, and says whether there was anything in it.
func (b *ballast) spend(now time.Time) (bool, error) {
	if b.path == "" || b.spent() {
		return false, nil
	}
	b.size, b.next = 0, now.Add(ballastRetry).UnixNano()
	if err := os.Truncate(b.path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// open looks at what an earlier run has left, and gets what an idle store needs.
func (b *ballast) open(path string, log int64, now time.Time) error {
	b.path = ballastPath(path)
	info, err := os.Stat(b.path)
	if err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			b.size = min(info.Size(), st.Blocks*512)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = b.hold(log)
	if isNoSpace(err) {
		_, err = b.spend(now) // what there is of it goes to who needs it
	}
	return err
}

// restore tries to get it back when it is time.
func (b *ballast) restore(now time.Time) error {
	if !b.spent() || now.UnixNano() < b.next {
		return nil
	}
	if err := b.fill(); err != nil {
		b.next = now.Add(ballastRetry).UnixNano()
		if !isNoSpace(err) {
			return err
		}
	}
	return nil
}
