package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/store"
)

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

// storeCommands are what scripts about stores need besides sublet itself.
func storeCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		"mkstore": mkstore, "flipbit": flipbit, "holdstore": holdstore,
		"glob":   func(ts *testscript.TestScript, _ bool, args []string) { wantFiles(ts, args[0], true) },
		"noglob": func(ts *testscript.TestScript, _ bool, args []string) { wantFiles(ts, args[0], false) },
	}
}

// mkstore DIR NAME ID makes a tenant in a data directory, as one that has run leaves it.
func mkstore(ts *testscript.TestScript, _ bool, args []string) {
	dir, name, id := dataDir(ts.MkAbs(args[0])), args[1], tenant.ID(args[2])
	ts.Check(dir.create())
	ts.Check(os.MkdirAll(dir.tenant(id), 0o700))
	_, err := pki.LoadOrCreate(dir.tenantKeys(id), cell.CAName(name))
	ts.Check(err)
	s, err := store.Open(cell.StorePath(dir.tenant(id)), store.Options{ID: string(id), NoSync: true})
	ts.Check(err)
	for i := range 31 {
		key := "/registry/pods/default/" + strconv.Itoa(i)
		if i >= 20 {
			key = "/registry/configmaps/default/" + strconv.Itoa(i)
		}
		_, err := s.Txn(context.Background(), store.Txn{Then: []store.Op{{Put: &store.Put{Key: []byte(key), Value: fmt.Appendf(nil, `{"spec": %d}`, i)}}}})
		ts.Check(err)
	}
	ts.Check(s.Close())
}

// flipbit FILE changes a bit in the middle of what is stored in a file.
func flipbit(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	const stored = `{"spec": 7}`
	changed := 0
	for i := range len(data) - len(stored) {
		if string(data[i:i+len(stored)]) == stored {
			data[i+2] ^= 1
			changed++
		}
	}
	if changed == 0 {
		ts.Fatalf("%s does not have %s", path, stored)
	}
	ts.Check(os.WriteFile(path, data, 0o600))
}

// holdstore FILE COMMAND… runs a command of the script while somebody has a store open.
func holdstore(ts *testscript.TestScript, neg bool, args []string) {
	held, err := store.Hold(ts.MkAbs(args[0]))
	ts.Check(err)
	defer held.Close()
	exits(ts, neg, args[2:])
}

func wantFiles(ts *testscript.TestScript, pattern string, want bool) {
	found, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if (len(found) > 0) != want {
		ts.Fatalf("%s: found %q", pattern, found)
	}
}
