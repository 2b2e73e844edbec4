package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/google/pprof/profile"
	"github.com/prometheus/procfs"
)

// The parts that this process's processor time is told apart by: goroutines carry them,
// and hand them to those that they start.
const (
	partTenants = "tenants" // the tenants' API servers and controllers
	partSyncers = "syncers"
	partClients = "clients" // who creates pods and looks at them
)

// labels are the contexts of the parts.
var labels = map[string]context.Context{
	partTenants: labelled(partTenants), partSyncers: labelled(partSyncers), partClients: labelled(partClients),
}

func labelled(part string) context.Context {
	return pprof.WithLabels(context.Background(), pprof.Labels("part", part))
}

// as does something as a part.
func as(part, before string, do func()) {
	pprof.SetGoroutineLabels(labels[part])
	defer pprof.SetGoroutineLabels(labels[before])
	do()
}

// meter measures processor time from its beginning on.
type meter struct {
	name  string                   // of the phase
	host  map[string]time.Duration // by process
	own   time.Duration
	begun procfs.CPUStat
	taken bytes.Buffer
	world *world
	api   <-chan error // what became of the profile of the host's API server; nil: there is none
}

// startMeter begins to measure the host's processes, and to profile this one.
func (w *world) startMeter(name string) (*meter, error) {
	m := &meter{name: name, world: w}
	if w.cpu != "" {
		if _, err := fmt.Fprintf(w.tellHost, "%s.%s.host\n", w.cpu, name); err != nil {
			return nil, err
		}
		m.api = w.profileAPI(name)
	}
	if err := pprof.StartCPUProfile(&m.taken); err != nil {
		return nil, err
	}
	var err error
	if m.host, err = usedByName(w.hosting.PIDs); err == nil {
		_, m.own, err = used(os.Getpid())
	}
	if err == nil {
		m.begun, err = machineTime()
	}
	if err != nil {
		pprof.StopCPUProfile()
	}
	return m, err
}

// apiWindow is for how long at the begin of a phase the host's API server is profiled.
const apiWindow = 30 * time.Second

// profileAPI profiles the API server of a host that is a process of its own.
func (w *world) profileAPI(phase string) (ended chan error) {
	ended = make(chan error, 1)
	if w.options.host != "upstream" {
		close(ended)
		return ended
	}
	go func() {
		ask := w.host.CoreV1().RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", fmt.Sprint(apiWindow.Seconds()))
		data, err := ask.DoRaw(context.Background())
		if err == nil {
			err = os.WriteFile(w.cpu+"."+phase+".kube-apiserver", data, 0o600)
		}
		ended <- err
	}()
	return ended
}

// stop ends the measurement, and reports milliseconds for each pod.
func (m *meter) stop(r *report, pods int) (err error) {
	pprof.StopCPUProfile()
	name := m.name
	if m.world.cpu != "" {
		defer func() { err = errors.Join(err, <-m.api) }() // when everything has been measured
		if _, err := fmt.Fprintln(m.world.tellHost); err != nil {
			return err
		}
		if err := os.WriteFile(m.world.cpu+"."+name, m.taken.Bytes(), 0o600); err != nil {
			return err
		}
	}
	host, err := usedByName(m.world.hosting.PIDs)
	if err != nil {
		return err
	}
	_, own, err := used(os.Getpid())
	if err != nil {
		return err
	}
	now, err := machineTime()
	if err != nil {
		return err
	}
	idle, stolen := parts(m.begun, now)
	r.value("processors/"+name+"/idle", 100*idle, "%")
	r.value("processors/"+name+"/stolen", 100*stolen, "%")
	each := func(d time.Duration) float64 { return ms(d) / float64(pods) }
	r.value("cpu/"+name+"/host", each(sum(host)-sum(m.host)), "ms/pod")
	for _, process := range slices.Sorted(maps.Keys(host)) {
		if len(host) > 1 {
			r.value("cpu/"+name+"/host/"+process, each(host[process]-m.host[process]), "ms/pod")
		}
	}
	r.value("cpu/"+name+"/beside", each(own-m.own), "ms/pod")
	spent, all, err := byPart(m.taken.Bytes())
	if err != nil {
		return err
	}
	for _, part := range []string{partTenants, partSyncers, partClients, ""} {
		label := part
		if label == "" {
			label = "garbage-and-rest"
		}
		if all > 0 {
			r.value("cpu/"+name+"/beside/"+label, each(own-m.own)*float64(spent[part])/float64(all), "ms/pod")
		}
	}
	return nil
}

// byPart adds up a profile's samples.
func byPart(data []byte) (parts map[string]int64, all int64, err error) {
	p, err := profile.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, 0, fmt.Errorf("profile: %w", err)
	}
	parts = map[string]int64{}
	for _, s := range p.Sample {
		part := ""
		if l := s.Label["part"]; len(l) > 0 {
			part = l[0]
		}
		parts[part] += s.Value[len(s.Value)-1]
		all += s.Value[len(s.Value)-1]
	}
	return parts, all, nil
}

// usedByName is the processor time that processes have used, by their names.
func usedByName(pids []int) (map[string]time.Duration, error) {
	by := map[string]time.Duration{}
	for _, pid := range pids {
		name, spent, err := used(pid)
		if err != nil {
			return nil, err
		}
		by[name] += spent
	}
	return by, nil
}

func sum(by map[string]time.Duration) time.Duration {
	var all time.Duration
	for _, d := range by {
		all += d
	}
	return all
}

// used is a process's name (the first 15 letters), and the processor time that it has used.
func used(pid int) (name string, spent time.Duration, err error) {
	var stat procfs.ProcStat
	p, err := procfs.NewProc(pid)
	if err == nil {
		stat, err = p.Stat()
	}
	if err != nil {
		return "", 0, fmt.Errorf("processor time: %w", err)
	}
	return stat.Comm, time.Duration(stat.CPUTime() * float64(time.Second)), nil
}

// machineTime is what the machine's processors have done since it was started, in seconds.
func machineTime() (procfs.CPUStat, error) {
	var stat procfs.Stat
	proc, err := procfs.NewDefaultFS()
	if err == nil {
		stat, err = proc.Stat()
	}
	if err != nil {
		return procfs.CPUStat{}, fmt.Errorf("processor time: %w", err)
	}
	return stat.CPUTotal, nil
}

// parts says which part of the time between two looks at the processors nobody wanted, and
// which part was wanted here and went to other virtual machines.
func parts(before, now procfs.CPUStat) (idle, stolen float64) {
	all := func(s procfs.CPUStat) float64 { // the guests' time is in the users' (proc(5))
		return s.User + s.Nice + s.System + s.Idle + s.Iowait + s.IRQ + s.SoftIRQ + s.Steal
	}
	took := all(now) - all(before)
	return (now.Idle + now.Iowait - before.Idle - before.Iowait) / took, (now.Steal - before.Steal) / took
}
