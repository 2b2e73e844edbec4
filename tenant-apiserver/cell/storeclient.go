package cell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
	"sublet.dev/tenant-apiserver/storetool"
)

// RefusedError is a cell's answer that it will not do, or has not done, something.
type RefusedError struct {
	Code    int // of HTTP: 404 not hosted or no store, 409 in use or another's, 422 no good backup, 503 try again
	Message string
}

func (e *RefusedError) Error() string { return e.Message }

// StoreStat asks what a tenant's store has.
func (c *Client) StoreStat(ctx context.Context, id tenant.ID) (storetool.Stat, error) {
	var s storetool.Stat
	err := c.ask(ctx, http.MethodGet, storeURL(id, ""), nil, &s)
	return s, err
}

// CheckStore asks for a whole check of a tenant's store, without pauses.
func (c *Client) CheckStore(ctx context.Context, id tenant.ID) (store.Report, error) {
	var r store.Report
	err := c.ask(ctx, http.MethodPost, storeURL(id, "/check"), nil, &r)
	return r, err
}

// ShrinkStore asks for the file to be rewritten: see [Cell.ShrinkStore].
func (c *Client) ShrinkStore(ctx context.Context, id tenant.ID) (store.Shrunk, error) {
	var s store.Shrunk
	err := c.ask(ctx, http.MethodPost, storeURL(id, "/shrink"), nil, &s)
	return s, err
}

// RestoreStore sends a backup to replace the tenant's store: see
// [Cell.RestoreStore].
func (c *Client) RestoreStore(ctx context.Context, id tenant.ID, from io.Reader) (backup.Result, error) {
	var r backup.Result
	err := c.ask(ctx, http.MethodPut, storeURL(id, ""), from, &r)
	return r, err
}

// MigrateStore asks for the tenant's cluster to be moved: see [Cell.MigrateStore].
func (c *Client) MigrateStore(ctx context.Context, id tenant.ID, to EtcdStore) (Moved, error) {
	var m Moved
	body, err := json.Marshal(to)
	if err != nil {
		return m, fmt.Errorf("encode the etcd: %w", err)
	}
	err = c.ask(ctx, http.MethodPost, storeURL(id, "/migrate"), bytes.NewReader(body), &m)
	return m, err
}

// DumpStore calls f for the keys of a tenant's store: see storetool.Dump.
func (c *Client) DumpStore(ctx context.Context, id tenant.ID, prefix string, values bool, f func(storetool.Key) error) error {
	q := url.Values{"prefix": {prefix}, "values": {strconv.FormatBool(values)}}
	return c.read(ctx, storeURL(id, "/keys?"+q.Encode()), func(r io.Reader) error {
		d := json.NewDecoder(r)
		for {
			var k storetool.Key
			if err := d.Decode(&k); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := f(k); err != nil {
				return err
			}
		}
	})
}

// BackupStore writes a backup of a tenant's store to w; name and program go into
// its header. Without an error it is complete.
func (c *Client) BackupStore(ctx context.Context, id tenant.ID, name, program string, w io.Writer) error {
	q := url.Values{"name": {name}, "program": {program}}
	return c.read(ctx, storeURL(id, "/backup?"+q.Encode()), func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

func storeURL(id tenant.ID, rest string) string {
	return "http://cell/tenants/" + url.PathEscape(string(id)) + "/store" + rest
}

// ask sends a request and decodes its answer.
func (c *Client) ask(ctx context.Context, method, at string, body io.Reader, into any) error {
	resp, err := c.send(ctx, method, at, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("decode the cell's answer: %w", err)
	}
	return nil
}

// read gets an answer that is streamed, and finds out whether it was complete.
func (c *Client) read(ctx context.Context, at string, f func(io.Reader) error) error {
	resp, err := c.send(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := f(resp.Body); err != nil {
		return fmt.Errorf("read the cell's answer: %w", err)
	}
	if why := resp.Trailer.Get(errorTrailer); why != "" {
		return &RefusedError{Code: http.StatusServiceUnavailable, Message: why}
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, at string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return nil, fmt.Errorf("ask the cell: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the cell: %w", err)
	}
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a text cut short is still a text
		resp.Body.Close()
		return nil, &RefusedError{Code: resp.StatusCode, Message: strings.TrimSpace(string(text))}
	}
	return resp, nil
}
