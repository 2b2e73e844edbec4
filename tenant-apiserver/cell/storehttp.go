package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/migrate"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
	"sublet.dev/tenant-apiserver/storetool"
)

// errorTrailer tells why an answer ended before it was complete.
const errorTrailer = "Sublet-Error"

// addStoreRoutes adds what can be done with the stores of hosted tenants:
//
//	GET  /tenants/{id}/store           storetool.Stat
//	POST /tenants/{id}/store/check     store.Report
//	POST /tenants/{id}/store/shrink    store.Shrunk     [Cell.ShrinkStore]
//	GET  /tenants/{id}/store/keys      storetool.Key, one a line; prefix=P, values=true
//	GET  /tenants/{id}/store/backup    a backup
//	POST /tenants/{id}/store/migrate   EtcdStore -> Moved            [Cell.MigrateStore]
//	PUT  /tenants/{id}/store           a backup -> backup.Result     [Cell.RestoreStore]
func (c *Cell) addStoreRoutes(mux *http.ServeMux) {
	AddLooks(mux, c.WithStore)
	mux.HandleFunc("POST /tenants/{id}/store/shrink", c.serveShrink)
	mux.HandleFunc("POST /tenants/{id}/store/migrate", c.serveMigrate)
	mux.HandleFunc("PUT /tenants/{id}/store", c.serveRestore)
}

// OpenStore calls f with the store of an ID, and returns its error or ErrNotHosted.
type OpenStore func(ctx context.Context, id tenant.ID, f func(*store.Store) error) error

// AddLooks adds the routes that change nothing, for any stores that are open.
func AddLooks(mux *http.ServeMux, open OpenStore) {
	mux.HandleFunc("GET /tenants/{id}/store", open.serveStat)
	mux.HandleFunc("POST /tenants/{id}/store/check", open.serveCheck)
	mux.HandleFunc("GET /tenants/{id}/store/keys", open.serveKeys)
	mux.HandleFunc("GET /tenants/{id}/store/backup", open.serveBackup)
}

func (open OpenStore) serveStat(w http.ResponseWriter, r *http.Request) {
	var stat storetool.Stat
	err := open(r.Context(), tenant.ID(r.PathValue("id")), func(s *store.Store) (err error) {
		stat, err = storetool.StatStore(r.Context(), s)
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, stat)
}

// serveCheck answers with what was found; a damaged store is an answer, too.
func (open OpenStore) serveCheck(w http.ResponseWriter, r *http.Request) {
	id := tenant.ID(r.PathValue("id"))
	var report store.Report
	err := open(r.Context(), id, func(s *store.Store) (err error) {
		report, err = s.CheckNow(r.Context())
		return err
	})
	if errors.Is(err, store.ErrCorrupt) && report.OK() {
		report.Problems = []string{err.Error()}
	}
	if err != nil && report.OK() {
		refuse(w, err)
		return
	}
	reply(w, report)
}

func (c *Cell) serveShrink(w http.ResponseWriter, r *http.Request) {
	s, err := c.ShrinkStore(r.Context(), tenant.ID(r.PathValue("id")))
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, s)
}

func (open OpenStore) serveKeys(w http.ResponseWriter, r *http.Request) {
	prefix, values := r.FormValue("prefix"), r.FormValue("values") == "true"
	open.stream(w, r, "application/jsonl", func(s *store.Store, out io.Writer) error {
		enc := json.NewEncoder(out)
		return storetool.Dump(storetool.OfStore(r.Context(), s), prefix, values, func(k storetool.Key) error { return enc.Encode(k) })
	})
}

func (open OpenStore) serveBackup(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	program := r.FormValue("program")
	open.stream(w, r, "application/octet-stream", func(s *store.Store, out io.Writer) error {
		_, _, err := backup.Take(r.Context(), s, out, backup.Options{Name: name, Program: program})
		return err
	})
}

// stream answers with what f writes. An error before the first byte is a status;
// one after it is in a trailer, and says that what came is not the whole.
func (open OpenStore) stream(w http.ResponseWriter, r *http.Request, kind string, f func(*store.Store, io.Writer) error) {
	out := &countingWriter{w: w}
	w.Header().Set("Trailer", errorTrailer)
	err := open(r.Context(), tenant.ID(r.PathValue("id")), func(s *store.Store) error {
		w.Header().Set("Content-Type", kind)
		return f(s, out)
	})
	switch {
	case err == nil:
	case out.n == 0:
		w.Header().Del("Trailer")
		refuse(w, err)
	default:
		w.Header().Set(errorTrailer, oneLine(err))
	}
}

func (c *Cell) serveRestore(w http.ResponseWriter, r *http.Request) {
	res, err := c.RestoreStore(r.Context(), tenant.ID(r.PathValue("id")), r.Body)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, res)
}

func (c *Cell) serveMigrate(w http.ResponseWriter, r *http.Request) {
	var to EtcdStore
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&to); err != nil {
		http.Error(w, "decode the etcd: "+err.Error(), http.StatusBadRequest)
		return
	}
	m, err := c.MigrateStore(r.Context(), tenant.ID(r.PathValue("id")), to)
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, m)
}

// countingWriter notes whether anything was written.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// refusals are what a client can tell apart.
var refusals = []struct {
	cause error
	code  int
}{
	{ErrNotHosted, http.StatusNotFound}, {os.ErrNotExist, http.StatusNotFound}, {errStoreMissing, http.StatusNotFound},
	{backup.ErrOtherTenant, http.StatusConflict}, {store.ErrInUse, http.StatusConflict}, {ErrNoFile, http.StatusConflict},
	{migrate.ErrNotEmpty, http.StatusConflict},
	{backup.ErrDamaged, http.StatusUnprocessableEntity}, {backup.ErrNotBackup, http.StatusUnprocessableEntity},
	{backup.ErrNewerFormat, http.StatusUnprocessableEntity},
	{backup.ErrTryAgain, http.StatusServiceUnavailable}, {ErrStopping, http.StatusServiceUnavailable},
	{errStopped, http.StatusServiceUnavailable}, {context.Canceled, http.StatusServiceUnavailable},
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var why busy
	if errors.As(err, &why) {
		code = http.StatusConflict
	}
	for _, r := range refusals {
		if errors.Is(err, r.cause) {
			code = r.code
			break
		}
	}
	http.Error(w, err.Error(), code)
}

// oneLine is an error as a header can carry it.
func oneLine(err error) string {
	b := []byte(fmt.Sprint(err))
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}
