package cell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"sublet.dev/isolation/tenant"
)

// longPoll is how long a request for changes waits for one.
const longPoll = 30 * time.Second

// Handler is the cell's API, for a unix socket that only the manager can open:
//
//	PUT    /tenants/{id}        Tenant -> Status    [Cell.Put]
//	GET    /tenants/{id}        Status or 404       [Cell.Get]
//	DELETE /tenants/{id}        204                 [Cell.Delete]
//	GET    /tenants/{id}/key    KeyStatus or 404    [Cell.KeyStatus]
//	POST   /tenants/{id}/key    KeyStatus           [Cell.RotateKey]
//	POST   /tenants/{id}/revoked  204 or 404        [Cell.Revoke]
//	GET    /tenants?after=N     Snapshot            [Cell.Snapshot]
//	POST   /tenants             [Tenant] -> 204     [Cell.Resume]
//	POST   /tenants/{id}/wake?why=TEXT       Status                 [Cell.Wake]
//	POST   /tenants/{id}/sleep?patience=TIME 204, or 409 and why not [Cell.Sleep]
//	GET    /metrics             Prometheus' text  [Cell.Metrics]
//	GET    /healthz             ok
func (c *Cell) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /tenants/{id}", c.servePut)
	mux.HandleFunc("GET /tenants/{id}", c.serveGet)
	mux.HandleFunc("DELETE /tenants/{id}", c.serveDelete)
	mux.HandleFunc("GET /tenants/{id}/key", c.serveKey)
	mux.HandleFunc("POST /tenants/{id}/key", c.serveRotateKey)
	all := http.NewServeMux()
	all.HandleFunc("GET /tenants", c.serveSnapshot)
	mux.HandleFunc("POST /tenants", c.serveResume)
	mux.HandleFunc("POST /tenants/{id}/revoked", c.serveRevoke)
	c.addStoreRoutes(mux)
	mux.HandleFunc("POST /tenants/{id}/wake", c.serveWake)
	mux.HandleFunc("POST /tenants/{id}/sleep", c.serveSleep)
	all.HandleFunc("GET /metrics", c.serveMetrics)
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	all.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !c.admit() {
			refuse(w, ErrStopping)
			return
		}
		defer c.release()
		mux.ServeHTTP(w, r)
	})
	return all
}

func (c *Cell) servePut(w http.ResponseWriter, r *http.Request) {
	var t Tenant
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&t); err != nil {
		http.Error(w, "decode the tenant: "+err.Error(), http.StatusBadRequest)
		return
	}
	if string(t.ID) != r.PathValue("id") {
		http.Error(w, "the path and the body name different tenants", http.StatusBadRequest)
		return
	}
	s, err := c.Put(r.Context(), t)
	switch {
	case errors.Is(err, ErrStopping):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		reply(w, s)
	}
}

// maxResume bounds a list of tenants: what grows in one is its revoked credentials.
const maxResume = 64 << 20

func (c *Cell) serveResume(w http.ResponseWriter, r *http.Request) {
	var tenants []Tenant
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxResume)).Decode(&tenants); err != nil {
		http.Error(w, "decode the tenants: "+err.Error(), http.StatusBadRequest)
		return
	}
	err := c.Resume(tenants)
	switch {
	case errors.Is(err, ErrStopping):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (c *Cell) serveGet(w http.ResponseWriter, r *http.Request) {
	s, ok := c.Get(tenant.ID(r.PathValue("id")))
	if !ok {
		http.NotFound(w, r)
		return
	}
	reply(w, s)
}

func (c *Cell) serveDelete(w http.ResponseWriter, r *http.Request) {
	if err := c.Delete(r.Context(), tenant.ID(r.PathValue("id"))); err != nil {
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *Cell) serveWake(w http.ResponseWriter, r *http.Request) {
	s, err := c.Wake(r.Context(), tenant.ID(r.PathValue("id")), r.FormValue("why"))
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, s)
}

func (c *Cell) serveSleep(w http.ResponseWriter, r *http.Request) {
	patience, err := time.ParseDuration(r.FormValue("patience"))
	if err != nil {
		http.Error(w, "patience must be a duration", http.StatusBadRequest)
		return
	}
	if err := c.Sleep(r.Context(), tenant.ID(r.PathValue("id")), patience); err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *Cell) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.FormValue("after"), 10, 64)
	if err != nil && r.FormValue("after") != "" {
		http.Error(w, "after must be a revision", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), longPoll)
	defer cancel()
	c.following(1)
	defer c.following(-1)
	reply(w, c.Snapshot(ctx, after))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone; nobody else wants to know
}

// Client speaks to a cell through its socket. It is safe for concurrent use.
type Client struct {
	http http.Client
	// patience is how long it waits for a cell that is being replaced.
	patience time.Duration
}

// NewClient returns a client of the cell whose socket is at path. It connects
// when it is used.
func NewClient(path string) *Client { return newClient(path, 0) }

// NewPatientClient is NewClient for who does not try again by himself: it waits for a
// cell whose process is being replaced, for some seconds.
func NewPatientClient(path string) *Client { return newClient(path, 10*time.Second) }

func newClient(path string, patience time.Duration) *Client {
	c := &Client{patience: patience}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			again(ctx, patience, func() bool {
				var d net.Dialer
				conn, err = d.DialContext(ctx, "unix", path)
				return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
			})
			return conn, err
		},
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
	}
	return c
}

// again calls try until it does not say that it is to be called once more, for
// patience at most.
func again(ctx context.Context, patience time.Duration, try func() bool) {
	for end := time.Now().Add(patience); try() && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Put asks for the tenant to be hosted so: see [Cell.Put].
func (c *Client) Put(ctx context.Context, t Tenant) (Status, error) {
	body, err := json.Marshal(t)
	if err != nil {
		return Status{}, fmt.Errorf("encode tenant %s: %w", t.Name, err)
	}
	var s Status
	err = c.do(ctx, http.MethodPut, "/tenants/"+string(t.ID), body, &s)
	return s, err
}

// Resume asks for tenants to be hosted again: see [Cell.Resume].
func (c *Client) Resume(ctx context.Context, tenants []Tenant) error {
	body, err := json.Marshal(tenants)
	if err != nil {
		return fmt.Errorf("encode the tenants: %w", err)
	}
	return c.do(ctx, http.MethodPost, "/tenants", body, nil)
}

// Delete asks for the tenant not to be hosted: see [Cell.Delete].
func (c *Client) Delete(ctx context.Context, id tenant.ID) error {
	return c.do(ctx, http.MethodDelete, "/tenants/"+string(id), nil, nil)
}

// Wake asks for the tenant to be woken: see [Cell.Wake].
func (c *Client) Wake(ctx context.Context, id tenant.ID, why string) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodPost, "/tenants/"+string(id)+"/wake?why="+url.QueryEscape(why), nil, &s)
	return s, told(err)
}

// Sleep asks for the tenant to be put to sleep: see [Cell.Sleep]. A [Refusal] says
// why it cannot sleep now.
func (c *Client) Sleep(ctx context.Context, id tenant.ID, patience time.Duration) error {
	return told(c.do(ctx, http.MethodPost, "/tenants/"+string(id)+"/sleep?patience="+patience.String(), nil, nil))
}

// answerError is an answer of the cell that is not what was asked for.
type answerError struct {
	code         int
	status, text string
}

// Error has the answer's code and text.
func (e *answerError) Error() string { return fmt.Sprintf("ask the cell: %s: %s", e.status, e.text) }

// told makes of an answer what the cell meant by it.
func told(err error) error {
	var answer *answerError
	switch {
	case !errors.As(err, &answer):
		return err
	case answer.code == http.StatusConflict:
		return Refusal(answer.text)
	case answer.code == http.StatusNotFound:
		return fmt.Errorf("ask the cell: %w", ErrNotHosted)
	}
	return err
}

// Refusal is a cell's answer that something cannot be done now.
type Refusal string

// Error is the cell's reason.
func (r Refusal) Error() string { return string(r) }

// Snapshot asks for the cell's state, if its revision is not above after as soon
// as it changes or after half a minute: see [Cell.Snapshot].
func (c *Client) Snapshot(ctx context.Context, after uint64) (Snapshot, error) {
	var s Snapshot
	err := c.do(ctx, http.MethodGet, "/tenants?after="+strconv.FormatUint(after, 10), nil, &s)
	return s, err
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) (err error) {
	again(ctx, c.patience, func() bool {
		err = c.once(ctx, method, path, body, into)
		var answer *answerError
		return errors.As(err, &answer) && answer.code == http.StatusServiceUnavailable && answer.text == ErrStopping.Error()
	})
	return err
}

func (c *Client) once(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://cell"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the cell: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the cell: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a text cut short is still a text
		return &answerError{resp.StatusCode, resp.Status, string(bytes.TrimSpace(text))}
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("decode the cell's answer: %w", err)
	}
	return nil
}
