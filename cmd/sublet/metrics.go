package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/measure"
)

// scrapeTime is what the cells get to say their numbers.
const scrapeTime = 5 * time.Second

// tenantMetrics answers with the numbers of all tenants in all cells, once there are
// cells.
type tenantMetrics struct {
	cells atomic.Pointer[cellKeeper]
	log   *slog.Logger
}

// ServeHTTP implements http.Handler.
func (m *tenantMetrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cells := m.cells.Load()
	if cells == nil {
		http.Error(w, "the server is starting: try again", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), scrapeTime)
	defer cancel()
	all := measure.Families{}
	for _, c := range cells.clients() {
		families, err := c.Metrics(ctx)
		if err != nil {
			// The numbers of the others are worth having.
			m.log.Warn("a cell does not say its metrics", "error", err)
			continue
		}
		for _, f := range families {
			all.Merge(f)
		}
	}
	var text bytes.Buffer
	if err := all.Write(&text); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", measure.ContentType)
	_, _ = w.Write(text.Bytes()) // the client may be gone
}

// clients are those of the cells that run.
func (k *cellKeeper) clients() []*cell.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*cell.Client
	for _, name := range sortedKeys(k.running) {
		all = append(all, k.running[name].client)
	}
	return all
}
