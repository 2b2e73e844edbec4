package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

func newStoreBackup(a *app) *cobra.Command {
	var file string
	var force bool
	cmd := &cobra.Command{
		Use: "backup {NAME | --file STORE} [FILE]", Short: "Back a tenant's store up, while it runs",
		Long: `Write a backup of a store as it is now to FILE, or to standard output when FILE is -. Without
FILE, to NAME-TIME.backup in the current directory. The tenant goes on running.

A file gets its name after it was read back and verified; a failure leaves nothing. The
keys that values are encrypted with are not in the backup: they are in server/keys in the
data directory, and without them a backup cannot be read. Keep a copy of them elsewhere.`,
		Example: "  sublet store backup acme\n  sublet store backup acme - | zstd > acme.zst\n  sublet store backup host",
		Args:    storeArgs(&file, 1), ValidArgsFunction: a.completeStore(&file),
	}
	addFile(cmd, &file)
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE when it exists")
	output := addOutput(cmd, "text", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, rest, err := a.findStore(cmd.Context(), file, args)
		if err != nil {
			return err
		}
		defer s.close()
		to := backupName(s)
		if len(rest) > 0 {
			to = rest[0]
		}
		if to == "-" {
			return explainStore(s.backup(cmd.Context(), a.out))
		}
		return a.backupTo(cmd.Context(), s, to, force, output)
	}
	return cmd
}

func backupName(s theStore) string {
	name := s.name
	if name == "" {
		name = filepath.Base(s.path)
	}
	return name + "-" + time.Now().UTC().Format("20060102T150405Z") + ".backup"
}

// backup writes a backup to w. It is complete when there is no error.
func (s theStore) backup(ctx context.Context, w io.Writer) error {
	if s.client != nil {
		return s.client.BackupStore(ctx, s.id, s.name, version, w)
	}
	return s.open(func(st *store.Store) error {
		_, _, err := backup.Take(ctx, st, w, backup.Options{Name: s.name, Program: version})
		return err
	}, nil)
}

// backedUp is the answer of backup.
type backedUp struct {
	File   string        `json:"file"`
	Header backup.Header `json:"backup"`
	Keys   int64         `json:"keys"`
	Bytes  int64         `json:"bytes"`
	SHA256 string        `json:"sha256"` // of all but the footer, which holds it
}

func (a *app) backupTo(ctx context.Context, s theStore, to string, force bool, output *outputFlag) error {
	p := newProgress(a.err)
	h, f, err := backup.WriteFile(to, force, func(w io.Writer) error {
		return s.backup(ctx, &sayingWriter{w: w, p: p, what: "backing up " + s.what})
	})
	p.done()
	if err != nil {
		return explainStore(err)
	}
	info, err := os.Stat(to)
	if err != nil {
		return fmt.Errorf("find the backup: %w", err)
	}
	done := backedUp{File: to, Header: h, Keys: f.Entries, Bytes: info.Size(), SHA256: hex.EncodeToString(f.SHA256[:])}
	if ok, err := output.print(a.out, done); ok {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s is backed up in %s: %d keys at revision %d, %s\n", s.what, to, done.Keys, h.Revision, sizeOf(done.Bytes))
	return err
}

// sayingWriter tells how far a copy has come: on a terminal as it goes, elsewhere
// once.
type sayingWriter struct {
	w    io.Writer
	p    *progress
	what string
	n    int64
	said time.Time
}

func (s *sayingWriter) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.say()
	return n, err
}

func (s *sayingWriter) say() {
	switch {
	case !s.p.tty:
		s.p.say(s.what)
	case time.Since(s.said) > waitPoll:
		s.said = time.Now()
		s.p.say(fmt.Sprintf("%s: %s", s.what, sizeOf(s.n)))
	}
}

// sayingReader is the same for what is sent.
type sayingReader struct {
	r io.Reader
	s *sayingWriter
}

func (r sayingReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.s.n += int64(n)
	r.s.say()
	return n, err
}

func newStoreRestore(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "restore {NAME | --file STORE} FILE", Short: "Replace a tenant's store by a backup of it",
		Long: `Replace a store by what a backup in FILE holds, or on standard input when FILE is -.

The whole backup is read and verified, and a new store made of it, before anything is
touched. A tenant that runs is stopped for the moment in which the files are exchanged;
its pods go on, and what came or went since the backup is reconciled. The old store is
kept beside the new one as store.db.before-restore-TIME: delete it when you are sure.

Revisions go on above the old ones, so watches and controllers of the tenant see time go
forward. A backup can be restored only into the tenant that it was taken of: its values are
encrypted with that tenant's keys, its services have that tenant's addresses.`,
		Example: "  sublet store restore acme acme-20260101T000000Z.backup\n  zstdcat acme.zst | sublet store restore acme -",
		Args:    storeArgs(&file, 1), ValidArgsFunction: a.completeStore(&file),
	}
	addFile(cmd, &file)
	output := addOutput(cmd, "text", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" && len(args) < 2 || len(args) == 0 {
			return usageErrorf("the backup is missing: %s", cmd.UseLine())
		}
		s, rest, err := a.findStore(cmd.Context(), file, args)
		if err != nil {
			return err
		}
		defer s.close()
		if err := s.replaceable(); err != nil {
			return err
		}
		return a.restore(cmd.Context(), s, rest[0], output)
	}
	return cmd
}

func (a *app) restore(ctx context.Context, s theStore, from string, output *outputFlag) (err error) {
	in := a.in
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return explainStore(fmt.Errorf("read the backup: %w", err))
		}
		defer f.Close()
		in = f
	}
	p := newProgress(a.err)
	res, err := s.restore(ctx, sayingReader{in, &sayingWriter{p: p, what: "restoring " + s.what}})
	p.done()
	if err != nil {
		return explainStore(err)
	}
	if ok, err := output.print(a.out, res); ok {
		return err
	}
	fmt.Fprintf(a.out, "%s is as it was at %s: %d keys, now at revision %d\n", s.what, res.Header.Time.Local().Format(time.DateTime), res.Keys, res.Revision)
	if res.Kept != "" {
		fmt.Fprintf(a.out, "what it was before is in %s\n", res.Kept)
	}
	return nil
}

func (s theStore) restore(ctx context.Context, r io.Reader) (backup.Result, error) {
	if s.client != nil {
		return s.client.RestoreStore(ctx, s.id, r)
	}
	id := string(s.id)
	if id == "" {
		var err error
		if id, err = ownerOf(ctx, s.path); err != nil {
			return backup.Result{}, err
		}
	}
	p, err := backup.Prepare(ctx, r, backup.Target{Path: s.path, Tenant: id})
	if err != nil {
		return backup.Result{}, err
	}
	if s.keys != "" {
		if err := s.checkKeys(ctx, p); err != nil {
			return backup.Result{}, errors.Join(err, p.Discard())
		}
	}
	return p.Commit(ctx)
}

// checkKeys wants the keys that the backup's values are encrypted with. Whether a
// KMS knows them only the server can ask.
func (s theStore) checkKeys(ctx context.Context, p *backup.Prepared) error {
	err := p.Look(func(st *store.Store) error { return server.CheckKeys(ctx, st, s.keys, nil) })
	if errors.Is(err, server.ErrKeyMissing) || errors.Is(err, keyring.ErrMissing) {
		return fmt.Errorf("the backup cannot be read: %w; put %s back as it was when the backup was taken", err, s.keys)
	}
	return nil
}

// ownerOf returns whose store a file is: what it says itself, or else what its place
// in a data directory says.
func ownerOf(ctx context.Context, path string) (string, error) {
	r, err := store.CheckFile(ctx, path)
	switch {
	case err == nil && r.Revision > 0:
		return r.ID, nil
	case errors.Is(err, store.ErrInUse):
		return "", err
	}
	dir := filepath.Dir(path)
	switch {
	case filepath.Base(filepath.Dir(dir)) == "tenants":
		return filepath.Base(dir), nil
	case filepath.Base(path) == "host.db":
		return "host", nil
	}
	return "", fmt.Errorf("%s does not say whose store it is, and is not in a data directory: restore the tenant by its name, or to its place, server/tenants/ID/store.db", path)
}

func newStoreCompact(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "compact {NAME | --file STORE}", Short: "Rewrite a store's file without the free room in it",
		Long: `Rewrite a store's file without the free room in it, and check it. Nothing in it changes, its
history neither. A tenant that runs is stopped for that moment; its pods go on.`,
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
		if err := s.replaceable(); err != nil {
			return err
		}
		var shrunk store.Shrunk
		if s.client != nil {
			shrunk, err = s.client.ShrinkStore(cmd.Context(), s.id)
		} else {
			shrunk, err = store.ShrinkFile(s.path)
		}
		if err != nil {
			return explainStore(err)
		}
		if ok, err := output.print(a.out, shrunk); ok {
			return err
		}
		_, err = fmt.Fprintf(a.out, "the file of %s has %s, it had %s\n", s.what, sizeOf(shrunk.After), sizeOf(shrunk.Before))
		return err
	}
	return cmd
}
