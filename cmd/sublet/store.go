package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

func newStore(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "store", Short: "Look into, back up and restore tenants' stores",
		Long: `Look into, back up and restore the stores of tenants: the files with their clusters.

Each command takes a tenant's NAME, "host" for the host's own store, or a file. By name, a
tenant that runs is asked through its cell and goes on running; of one that does not run,
the file is opened. With --file, a store that nobody has open (check, stat and dump also
read backups).

Values are shown and backed up as they are stored: encrypted ones stay encrypted, under keys
that are not in the store: see docs/storage.md.`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStoreCheck(a), newStoreStat(a), newStoreDump(a), newStoreCompact(a), newStoreBackup(a), newStoreRestore(a), newStoreMigrate(a), newRotateKey(a))
	return cmd
}

// theStore is the store that a command is about.
type theStore struct {
	what   string       // for messages
	name   string       // of the tenant, "" with --file
	id     tenant.ID    // of the tenant, "" with --file
	path   string       // of the file
	keys   string       // path of the tenant's encryption keys, "" with --file
	client *cell.Client // of the cell that hosts the tenant; nil: nobody does
}

func (s theStore) close() {
	if s.client != nil {
		s.client.Close()
	}
}

// storeArgs accepts a name, or --file instead of it, and rest more arguments at
// most.
func storeArgs(file *string, rest int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		most := rest
		if *file == "" {
			most++
			if len(args) == 0 {
				return usageErrorf("give a tenant's name or --file: %s", cmd.UseLine())
			}
			if err := checkName(args[0]); err != nil && args[0] != hostName {
				return err
			}
		}
		if len(args) > most {
			return usageErrorf("unexpected argument %q: %s", args[most], cmd.UseLine())
		}
		return nil
	}
}

func addFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "file", "", "a file instead of a tenant's name")
	must(cmd.MarkFlagFilename("file"))
}

// completeStore completes a tenant's name unless a file is given, and then files.
func (a *app) completeStore(file *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if *file == "" && len(args) == 0 {
			names, directive := a.completeNames(cmd, args, toComplete)
			if strings.HasPrefix(hostName, toComplete) {
				names = append(names, hostName)
			}
			return names, directive
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// findStore returns the store that the arguments name, and the arguments after it.
func (a *app) findStore(ctx context.Context, file string, args []string) (theStore, []string, error) {
	if file != "" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return theStore{}, nil, fmt.Errorf("find %s: %w", file, err)
		}
		return theStore{what: file, path: abs}, args, nil
	}
	if err := a.dir.check(); errors.Is(err, errNoDataDir) {
		return theStore{}, nil, fmt.Errorf("%w: say where it is with --data-dir or $%s, or give a file with --file", err, envDataDir)
	} else if err != nil {
		return theStore{}, nil, err
	}
	name := args[0]
	if name == hostName {
		s, err := a.hostsStore()
		return s, args[1:], err
	}
	id, err := a.dir.tenantNamed(name)
	if err != nil {
		return theStore{}, nil, err
	}
	s := theStore{what: "tenant " + name, name: name, id: id, path: cell.StorePath(a.dir.tenant(id)), keys: a.dir.storeKeys(id)}
	s.client, err = a.dir.hostOf(ctx, id)
	return s, args[1:], err
}

// hostsStore is the store of the host itself, which the server has open.
func (a *app) hostsStore() (theStore, error) {
	s := theStore{what: "the host", name: hostName, id: hostName, path: a.dir.hostStore(), keys: a.dir.hostStoreKeys()}
	_, alive, err := a.dir.slot("server").Holder()
	if alive {
		s.client = cell.NewClient(a.dir.serverSocket())
	}
	return s, err
}

// replaceable says whether a store may be exchanged: the host's only while nothing
// runs that has read it.
func (s theStore) replaceable() error {
	if s.name == hostName && s.client != nil {
		return &exitError{exitConflict, errors.New("the host's store can be exchanged only while the host does not run: stop `sublet up` (pods go on), give the command again, and start it")}
	}
	return nil
}

// tenantNamed finds the tenant of a name among those that have run here. Their CAs
// say their names, so no host API is needed.
func (d dataDir) tenantNamed(name string) (tenant.ID, error) {
	dirs, err := os.ReadDir(d.path("server", "tenants"))
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("the data directory %s is root's: run sublet with sudo", d)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the tenants' directory: %w", err)
	}
	var found []string
	for _, e := range dirs {
		if caName(d.tenantKeys(tenant.ID(e.Name()))) == cell.CAName(name) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", &exitError{exitNotFound, fmt.Errorf("no tenant %q has run with the data directory %s: `sublet list` shows those there are", name, d)}
	case 1:
		return tenant.ID(found[0]), nil
	}
	return "", &exitError{exitConflict, fmt.Errorf("several tenants were called %q (%s), all but one are being deleted: wait until they are gone, or give one's file with --file", name, strings.Join(found, ", "))}
}

// caName returns the common name of the CA in a directory of keys; "" when there
// is none that can be read, which is then not the tenant that is looked for.
func caName(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return ca.Subject.CommonName
}

// hostOf returns a client of the cell that hosts a tenant, or nil.
func (d dataDir) hostOf(ctx context.Context, id tenant.ID) (*cell.Client, error) {
	names, err := d.cellNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, alive, err := d.slot(name).Holder(); err != nil || !alive {
			continue // a store that it had open is locked no more
		}
		c := cell.NewClient(d.cellSocket(name))
		now, err := hosts(ctx, c)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("%s runs and does not answer: try again in a few seconds; its log is %s (%w)", name, d.log(name), err)
		}
		for _, t := range now.Tenants {
			if t.ID == id {
				return c, nil
			}
		}
		c.Close()
	}
	return nil, nil
}

// answerTime is how long a cell may take to say whom it hosts.
const answerTime = 10 * time.Second

func hosts(ctx context.Context, c *cell.Client) (cell.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.Snapshot(ctx, 0)
}

// explainStore gives an error of a store or a cell its exit code and, where one can
// do something, says what.
func explainStore(err error) error {
	var refused *cell.RefusedError
	var coded *exitError
	code, next := exitFailed, ""
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		code = coded.code
	case errors.As(err, &refused) && refused.Code == http.StatusNotFound, errors.Is(err, fs.ErrNotExist):
		code = exitNotFound
	case errors.As(err, &refused) && refused.Code == http.StatusConflict, errors.Is(err, store.ErrInUse), errors.Is(err, backup.ErrOtherTenant):
		code = exitConflict
	case errors.Is(err, fs.ErrExist):
		code, next = exitConflict, ": choose another name, or use --force"
	case errors.Is(err, fs.ErrPermission):
		next = ": run sublet with sudo"
	case errors.Is(err, backup.ErrNewerFormat):
		next = ": use the newer sublet that wrote it"
	case errors.Is(err, backup.ErrDamaged):
		next = ": use another backup; nothing was changed"
	}
	if next != "" {
		err = fmt.Errorf("%w%s", err, next)
	}
	return &exitError{code, err}
}
