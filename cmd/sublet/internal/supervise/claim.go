package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// claimWait is how long a claim waits for a lock whose recorded holder is not
// alive: long enough for a dying process to be taken apart by the kernel.
const claimWait = 3 * time.Second

// Slot is a place that at most one process holds.
type Slot struct {
	Name   string // for messages, for example "server"
	Lock   string // path of the lock file
	Record string // path of the record file
}

// SlotIn returns the slot name whose files are in dir.
func SlotIn(dir, name string) Slot {
	return Slot{Name: name, Lock: filepath.Join(dir, name+".lock"), Record: filepath.Join(dir, name+".pid")}
}

// Record says which process holds a slot. The file has the process id first, for
// people and shell scripts, and then the record as JSON.
type Record struct {
	PID     int       `json:"pid"`
	Start   uint64    `json:"startTicks"` // field 22 of proc_pid_stat(5): tells apart two processes with one id
	Boot    string    `json:"boot"`       // /proc/sys/kernel/random/boot_id: start times are since boot
	Build   string    `json:"build"`      // see [Build]
	Command []string  `json:"command"`
	Since   time.Time `json:"since"`
}

// HeldError says that a live process holds the slot.
type HeldError struct {
	Slot   Slot
	Holder Record
}

// Error names the holder.
func (e *HeldError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by a process that did not say who it is", e.Slot.Lock)
	}
	return fmt.Sprintf("process %d holds %s since %s (%s)", e.Holder.PID, e.Slot.Lock,
		e.Holder.Since.Local().Format(time.DateTime), strings.Join(e.Holder.Command, " "))
}

// Claim is a held slot.
type Claim struct {
	slot Slot
	lock *flock.Flock
}

// Take claims the slot for this process. It returns a [*HeldError] when a live
// process holds it. The files' directory must exist.
func Take(s Slot, build string) (*Claim, error) {
	lock := flock.New(s.Lock, flock.SetPermissions(0o600))
	deadline := time.Now().Add(claimWait)
	for {
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", s.Lock, err)
		}
		if ok {
			break
		}
		holder, alive, err := s.Holder()
		if err == nil && alive || time.Now().After(deadline) {
			return nil, &HeldError{Slot: s, Holder: holder}
		}
		time.Sleep(20 * time.Millisecond)
	}
	c := &Claim{slot: s, lock: lock}
	if err := c.record(build); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return c, nil
}

// Release gives the slot back. The lock file stays: removing it would let two
// processes lock two files of one name.
func (c *Claim) Release() error {
	err := os.Remove(c.slot.Record)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, c.lock.Close())
}

func (c *Claim) record(build string) error {
	self := os.Getpid()
	start, err := startTicks(self)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	data, err := json.Marshal(Record{PID: self, Start: start, Boot: boot, Build: build, Command: os.Args, Since: time.Now().Truncate(time.Second)})
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", c.slot.Name, err)
	}
	data = fmt.Appendf(nil, "%d %s\n", self, data)
	tmp := fmt.Sprintf("%s.%d.tmp", c.slot.Record, self)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write the record of %s: %w", c.slot.Name, err)
	}
	if err := os.Rename(tmp, c.slot.Record); err != nil {
		return fmt.Errorf("write the record of %s: %w", c.slot.Name, err)
	}
	return nil
}

// Holder returns the slot's record and whether the process that it names is
// alive. A slot that was never held has none: the zero record, not alive. A
// record that cannot be read is an error.
func (s Slot) Holder() (Record, bool, error) {
	data, err := os.ReadFile(s.Record)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read the record of %s: %w", s.Name, err)
	}
	var r Record
	_, data, _ = bytes.Cut(data, []byte(" "))
	if err := json.Unmarshal(data, &r); err != nil || r.PID <= 1 {
		return Record{}, false, fmt.Errorf("%s is no process record: remove it", s.Record)
	}
	alive, err := r.alive()
	return r, alive, err
}
