package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// setting is a kernel setting that a node needs.
type setting struct {
	name string // below /proc/sys
	want int
	// least: a greater value is left alone.
	least bool
}

// settings are what the kubelet sets by itself (pkg/kubelet/cm, setupKernelTunables)
// and what pods' traffic and many watchers need. Setting them first lets us record
// what they were.
func settings() []setting {
	return []setting{
		{"vm/overcommit_memory", 1, false},
		{"vm/panic_on_oom", 0, false},
		{"kernel/panic", 10, false},
		{"kernel/panic_on_oops", 1, false},
		{"kernel/keys/root_maxkeys", 1000000, true},
		{"kernel/keys/root_maxbytes", 25000000, true},
		{"fs/inotify/max_user_instances", 8192, true},
		{"net/ipv4/ip_forward", 1, false},
	}
}

// change is a setting that was changed: from what, to what.
type change struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

func sysctlRecord(l Layout) string { return filepath.Join(l.Agent(), "sysctl.json") }

// setKernel changes the kernel's settings and records what they were, before the
// first change and only once, so that a second start keeps the first values.
func setKernel(l Layout) error {
	changes, err := readChanges(l)
	if err != nil {
		return err
	}
	for _, s := range settings() {
		now, err := readSetting(s.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err != nil {
			return err
		}
		if v, err := strconv.Atoi(now); err == nil && (v == s.want || s.least && v > s.want) {
			continue
		}
		if _, again := changes[s.name]; !again {
			changes[s.name] = change{Before: now, After: strconv.Itoa(s.want)}
			if err := writeChanges(l, changes); err != nil {
				return err
			}
		}
		if err := writeSetting(s.name, strconv.Itoa(s.want)); err != nil {
			return fmt.Errorf("a node needs %s = %d: %w", s.name, s.want, err)
		}
	}
	return nil
}

// restoreKernel puts back what setKernel changed, unless somebody else has
// changed it since, and forgets it.
func restoreKernel(l Layout) error {
	changes, err := readChanges(l)
	if err != nil {
		return err
	}
	var errs []error
	for name, c := range changes {
		if now, err := readSetting(name); err != nil || now != c.After {
			continue
		}
		errs = append(errs, writeSetting(name, c.Before))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(sysctlRecord(l)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the kernel's settings: %w", err)
	}
	return nil
}

func readChanges(l Layout) (map[string]change, error) {
	changes := map[string]change{}
	raw, err := os.ReadFile(sysctlRecord(l))
	if errors.Is(err, fs.ErrNotExist) {
		return changes, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of kernel settings: %w", err)
	}
	if err := json.Unmarshal(raw, &changes); err != nil {
		return nil, fmt.Errorf("%s is not readable, so the kernel's settings cannot be put back; put them right by hand and remove it: %w", sysctlRecord(l), err)
	}
	return changes, nil
}

func writeChanges(l Layout, changes map[string]change) error {
	raw, err := json.MarshalIndent(changes, "", "  ")
	if err != nil {
		return fmt.Errorf("record the kernel's settings: %w", err)
	}
	return writeFile(sysctlRecord(l), raw, 0o600)
}

func readSetting(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return "", fmt.Errorf("read a kernel setting: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

func writeSetting(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		return fmt.Errorf("write a kernel setting: %w", err)
	}
	return nil
}

// writeFile writes a file so that it is either the old or the new one after a
// crash, never a part.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
