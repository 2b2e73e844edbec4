package nft

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Kernel is one table in the kernel of the caller's network namespace. Its methods
// may be called one at a time.
type Kernel struct {
	table string
	nft   knftables.Interface
}

// Open returns the table with a name. The error says what is missing: the nft
// program (1.0.1 or later), nftables in the kernel, or the right to use it.
func Open(table string) (*Kernel, error) {
	nft, err := knftables.New(knftables.InetFamily, table)
	if err != nil {
		return nil, fmt.Errorf("use nftables (install the package nftables, and be root): %w", err)
	}
	return &Kernel{table: table, nft: nft}, nil
}

// Apply makes the kernel's table equal to t in one transaction: either all of it
// is in force when Apply returns nil, or all of what was before. Counters that
// stay keep their values, unless something that exists has to change its type.
func (k *Kernel) Apply(ctx context.Context, t Table) error {
	existing, err := k.nft.ListAll(ctx)
	if err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("list the table %s: %w", k.table, err)
	}
	tx := k.nft.NewTransaction()
	k.update(tx, t, existing)
	err = k.nft.Run(ctx, tx)
	if err == nil || ctx.Err() != nil {
		return wrap(err, "change the table "+k.table)
	}
	// What exists may be of another version, whose sets have other types.
	again := k.nft.NewTransaction()
	again.Add(&knftables.Table{})
	again.Delete(&knftables.Table{})
	t.add(again)
	return wrap(k.nft.Run(ctx, again), "replace the table "+k.table)
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// update changes the existing objects, by type and name, to those of t: all is
// emptied, then added, then what is left over is removed.
func (k *Kernel) update(tx *knftables.Transaction, t Table, existing map[string][]string) {
	tx.Add(&knftables.Table{})
	for _, name := range existing["chain"] {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range existing["map"] {
		tx.Flush(&knftables.Map{Name: name})
	}
	for _, name := range existing["set"] {
		tx.Flush(&knftables.Set{Name: name})
	}
	t.add(tx)
	want := map[string][]string{"counter": t.Counters}
	for _, c := range t.Chains {
		want["chain"] = append(want["chain"], c.Name)
	}
	for _, m := range t.Maps {
		want["map"] = append(want["map"], m.Name)
	}
	for _, s := range t.Sets {
		want["set"] = append(want["set"], s.Name)
	}
	for _, kind := range []string{"chain", "map", "set", "counter"} {
		for _, name := range existing[kind] {
			if !slices.Contains(want[kind], name) {
				tx.Delete(object(kind, name))
			}
		}
	}
}

func object(kind, name string) knftables.Object {
	switch kind {
	case "chain":
		return &knftables.Chain{Name: name}
	case "map":
		return &knftables.Map{Name: name}
	case "set":
		return &knftables.Set{Name: name}
	}
	return &knftables.Counter{Name: name}
}

// Delete removes the table. It returns nil when there is none.
func (k *Kernel) Delete(ctx context.Context) error {
	tx := k.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	return wrap(k.nft.Run(ctx, tx), "remove the table "+k.table)
}

// Counters returns the packets that each named counter has seen.
func (k *Kernel) Counters(ctx context.Context) (map[string]uint64, error) {
	counters, err := k.nft.ListCounters(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the counters of table %s: %w", k.table, err)
	}
	packets := make(map[string]uint64, len(counters))
	for _, c := range counters {
		if c.Packets != nil {
			packets[c.Name] = *c.Packets
		}
	}
	return packets, nil
}

// Read returns the table as the kernel has it. knftables does not read rules, so
// the text of `nft list` is.
func (k *Kernel) Read(ctx context.Context) (Table, error) {
	out, err := exec.CommandContext(ctx, "nft", "--stateless", "list", "table", "inet", k.table).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return Table{}, fmt.Errorf("list the table %s: %w", k.table, err)
	}
	return parse(k.table, string(out)), nil
}
