package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
	"sublet.dev/tenant-apiserver/storetool"
)

func newStoreStat(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "stat {NAME | --file FILE}", Short: "Show how large a store or a backup is and what takes the room",
		Args: storeArgs(&file, 0), ValidArgsFunction: a.completeStore(&file),
	}
	addFile(cmd, &file)
	output := addOutput(cmd, "table", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, _, err := a.findStore(cmd.Context(), file, args)
		if err != nil {
			return err
		}
		defer s.close()
		stat, err := s.stat(cmd.Context())
		if err != nil {
			return explainStore(err)
		}
		if ok, err := output.print(a.out, stat); ok {
			return err
		}
		return a.printStat(s, stat)
	}
	return cmd
}

func (s theStore) stat(ctx context.Context) (stat storetool.Stat, err error) {
	if s.client != nil {
		return s.client.StoreStat(ctx, s.id)
	}
	err = s.open(
		func(st *store.Store) error { stat, err = storetool.StatStore(ctx, st); return err },
		func(b *backup.Reader, size int64) error { stat, err = storetool.StatBackup(b, size); return err },
	)
	return stat, err
}

// open opens the file, which is a store or a backup.
func (s theStore) open(asStore func(*store.Store) error, asBackup func(*backup.Reader, int64) error) error {
	f, err := os.Open(s.path) // opening a store would make it
	if err != nil {
		return err
	}
	defer f.Close()
	first, err := bufio.NewReader(f).Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	if !backup.IsBackup(first) {
		st, err := store.Open(s.path, store.Options{})
		if err != nil {
			return err
		}
		return errors.Join(asStore(st), st.Close())
	}
	if asBackup == nil {
		return &exitError{exitUsage, fmt.Errorf("%s is a backup, and a store is needed here", s.path)}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	b, err := backup.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if err := asBackup(b, info.Size()); err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

// sizeOf is a number of bytes for people.
func sizeOf(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (a *app) printStat(s theStore, stat storetool.Stat) error {
	rows := [][]string{
		{"Tenant:", stat.Tenant},
		{"File:", s.path},
		{"Size:", sizeOf(stat.FileBytes)},
		{"Revision:", strconv.FormatInt(stat.Revision, 10)},
		{"History from:", strconv.FormatInt(stat.Compacted, 10)},
		{"Keys:", fmt.Sprintf("%d, %s with their values", stat.Keys, sizeOf(stat.Bytes))},
		{"Encrypted:", fmt.Sprintf("%d of the values", stat.Encrypted)},
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	rows = [][]string{{"KEYS OF", "KEYS", "SIZE", "LARGEST", "ITS SIZE"}}
	for _, r := range stat.Resources {
		rows = append(rows, []string{r.Prefix, strconv.FormatInt(r.Keys, 10), sizeOf(r.Bytes), strconv.Quote(r.Largest), sizeOf(r.LargestBytes)})
	}
	return table(a.out, rows)
}

func newStoreCheck(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "check {NAME | --file FILE}", Short: "Look through a store or a backup for damage",
		Long: `Look through a whole store or backup for damage: checksums of all values, that keys, history
and leases agree, and, of a store that nobody has open, the pages of the file. Nothing is
changed. Exit code 1 says that there is damage, or that nothing could be looked at.`,
		Args: storeArgs(&file, 0), ValidArgsFunction: a.completeStore(&file),
	}
	addFile(cmd, &file)
	output := addOutput(cmd, "text", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, _, err := a.findStore(cmd.Context(), file, args)
		if err != nil {
			return err
		}
		defer s.close()
		r, err := s.check(cmd.Context())
		if err != nil {
			return explainStore(err)
		}
		return a.printCheck(s, r, output)
	}
	return cmd
}

// checked is the answer of check.
type checked struct {
	OK       bool     `json:"ok"`
	Tenant   string   `json:"tenant,omitempty"`
	Backup   bool     `json:"backup,omitempty"`
	Revision int64    `json:"revision"`
	Keys     int64    `json:"keys"`
	Deleted  int64    `json:"deleted"` // keys whose history is still there
	Records  int64    `json:"records"` // of the history
	Leases   int64    `json:"leases"`
	Problems []string `json:"problems"`
}

func (s theStore) check(ctx context.Context) (checked, error) {
	if s.client != nil {
		r, err := s.client.CheckStore(ctx, s.id)
		return checkedStore(r), err
	}
	f, err := os.Open(s.path)
	if err != nil {
		return checked{}, err
	}
	defer f.Close()
	first := make([]byte, 64)
	n, err := io.ReadFull(f, first)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return checked{}, fmt.Errorf("read %s: %w", s.path, err)
	}
	if !backup.IsBackup(first[:n]) {
		r, err := store.CheckFile(ctx, s.path)
		return checkedStore(r), err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return checked{}, err
	}
	h, sum, err := backup.Verify(f)
	c := checked{OK: err == nil, Backup: true, Tenant: h.Tenant, Revision: h.Revision, Keys: sum.Entries, Leases: sum.Leases, Problems: []string{}}
	if errors.Is(err, backup.ErrDamaged) {
		c.Problems, err = []string{err.Error()}, nil
	}
	return c, err
}

func checkedStore(r store.Report) checked {
	return checked{
		OK: r.OK(), Tenant: r.ID, Revision: r.Revision, Keys: r.Keys, Deleted: r.Tombstones,
		Records: r.Records, Leases: r.Leases, Problems: append([]string{}, r.Problems...),
	}
}

func (a *app) printCheck(s theStore, c checked, output *outputFlag) error {
	if ok, err := output.print(a.out, c); err != nil {
		return err
	} else if !ok && c.OK {
		fmt.Fprintf(a.out, "%s is in order: %d keys at revision %d\n", s.what, c.Keys, c.Revision)
	} else if !ok {
		for _, p := range c.Problems {
			fmt.Fprintln(a.out, p)
		}
	}
	switch {
	case c.OK:
		return nil
	case c.Backup:
		return fmt.Errorf("%s is damaged: use another backup", s.what)
	}
	return fmt.Errorf("%s is damaged (%d problems): copy %s away before anything else, restore a backup with `sublet store restore`, and check the disk", s.what, len(c.Problems), s.path)
}

func newStoreDump(a *app) *cobra.Command {
	var file, prefix string
	var values bool
	cmd := &cobra.Command{
		Use: "dump {NAME | --file FILE}", Short: "List the keys of a store or a backup",
		Long: `List the keys of a store or a backup, as a table or as JSON, one key a line. With --values,
the values as they are stored: in JSON in base64, in the table as text where they are text.`,
		Example: "  sublet store dump acme --prefix /registry/pods/\n  sublet store dump --file acme.backup --values -o json | jq .key",
		Args:    storeArgs(&file, 0), ValidArgsFunction: a.completeStore(&file),
	}
	addFile(cmd, &file)
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().BoolVar(&values, "values", false, "the values, too")
	output := addOutput(cmd, "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, _, err := a.findStore(cmd.Context(), file, args)
		if err != nil {
			return err
		}
		defer s.close()
		out := bufio.NewWriter(a.out)
		line := tableLine(out, values)
		if output.value == "json" {
			enc := json.NewEncoder(out)
			line = func(k storetool.Key) error { return enc.Encode(k) }
		} else {
			fmt.Fprintln(out, heading(values))
		}
		return errors.Join(explainStore(s.dump(cmd.Context(), prefix, values, line)), out.Flush())
	}
	return cmd
}

func (s theStore) dump(ctx context.Context, prefix string, values bool, f func(storetool.Key) error) error {
	if s.client != nil {
		return s.client.DumpStore(ctx, s.id, prefix, values, f)
	}
	return s.open(
		func(st *store.Store) error { return storetool.Dump(storetool.OfStore(ctx, st), prefix, values, f) },
		func(b *backup.Reader, _ int64) error {
			return storetool.Dump(storetool.OfBackup(b), prefix, values, f)
		},
	)
}

func heading(values bool) string {
	if values {
		return "REVISION\tVERSION\tSIZE\tKEY\tVALUE"
	}
	return "REVISION\tVERSION\tSIZE\tKEY"
}

// tableLine prints a key in a line, columns apart by tabs: a table that is printed
// as it comes cannot be as wide as its widest row.
func tableLine(w io.Writer, values bool) func(storetool.Key) error {
	return func(k storetool.Key) error {
		_, err := fmt.Fprintf(w, "%d\t%d\t%d\t%q", k.ModRevision, k.Version, k.Bytes, k.Key)
		if values && err == nil {
			_, err = fmt.Fprintf(w, "\t%s", shown(k))
		}
		if err == nil {
			_, err = fmt.Fprintln(w)
		}
		return err
	}
}

// shown is a value as people can read it: text quoted, so that nothing in it reaches
// the terminal, or else base64.
func shown(k storetool.Key) string {
	for _, c := range k.Value {
		if c >= 0x7f || c < ' ' && c != '\n' && c != '\t' {
			return base64.StdEncoding.EncodeToString(k.Value)
		}
	}
	return strconv.Quote(string(k.Value))
}
