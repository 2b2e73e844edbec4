package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	auditwebhook "k8s.io/apiserver/plugin/pkg/audit/webhook"
)

const (
	// webhookBuffer is how many events of a control plane may wait for the webhook.
	// What comes when so many do is dropped, and logged.
	webhookBuffer = 2000
	// webhookBatch and webhookWait are how many events are sent at once, and how long
	// the first of them waits for others.
	webhookBatch = 400
	webhookWait  = 5 * time.Second
	// webhookRetry is when a batch that was not taken is sent again; then it takes
	// longer, five times in all.
	webhookRetry = 500 * time.Millisecond
	// webhookGrace is what is left to send what waits when a control plane stops.
	webhookGrace = 3 * time.Second
)

// Annotations of events that are sent to a webhook: whose they are. A tenant cannot
// write them; what it has its policies write there is replaced.
const (
	AuditTenant   = "sublet.dev/tenant"
	AuditTenantID = "sublet.dev/tenant-id"
)

// newAuditWebhook sends events to the webhook of a kubeconfig, in batches, and never
// has a request wait.
func newAuditWebhook(kubeconfig string, labels map[string]string) (audit.Backend, error) {
	line := &boundedLine{open: map[net.Conn]struct{}{}}
	sender, err := auditwebhook.NewBackend(kubeconfig, auditv1.SchemeGroupVersion,
		webhook.DefaultRetryBackoffWithInitialDelay(webhookRetry), line.dial)
	if err != nil {
		return nil, fmt.Errorf("audit webhook: %w", err)
	}
	queue := buffered.NewBackend(labelled{sender, labels}, buffered.BatchConfig{
		BufferSize: webhookBuffer, MaxBatchSize: webhookBatch, MaxBatchWait: webhookWait,
	})
	return &endingAudit{Backend: queue, line: line}, nil
}

// labelled says whose events these are. It writes to them: they are the queue's own
// copies.
type labelled struct {
	audit.Backend
	labels map[string]string
}

// ProcessEvents implements audit.Sink.
func (l labelled) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, e := range events {
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		maps.Copy(e.Annotations, l.labels)
	}
	return l.Backend.ProcessEvents(events...)
}

// endingAudit is a queue that is emptied in a bounded time: a webhook that does not
// answer must not keep a control plane from stopping.
type endingAudit struct {
	audit.Backend
	line *boundedLine
}

// Shutdown implements audit.Backend.
func (e *endingAudit) Shutdown() {
	timer := time.AfterFunc(webhookGrace, e.line.cut)
	defer timer.Stop()
	e.Backend.Shutdown()
	e.line.cut()
}

// boundedLine makes connections until it is cut, which ends them.
type boundedLine struct {
	mu   sync.Mutex
	gone bool
	open map[net.Conn]struct{}
}

var errCut = errors.New("the control plane has stopped")

func (l *boundedLine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	gone := l.gone
	l.mu.Unlock()
	if gone {
		return nil, errCut
	}
	conn, err := (&net.Dialer{Timeout: webhookGrace}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return nil, errors.Join(errCut, conn.Close())
	}
	c := &lineConn{conn, l}
	l.open[c] = struct{}{}
	return c, nil
}

func (l *boundedLine) cut() {
	l.mu.Lock()
	l.gone = true
	open := l.open
	l.open = map[net.Conn]struct{}{}
	l.mu.Unlock()
	for c := range open {
		_ = c.Close() // the webhook's side may be gone
	}
}

type lineConn struct {
	net.Conn
	line *boundedLine
}

// Close implements net.Conn.
func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.open, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}
