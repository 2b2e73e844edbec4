package kube

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

var errNotServing = errors.New("the control plane is not running")

// response is the http.ResponseWriter of a loopback request. The API server's
// watch handler insists on http.Flusher and http.CloseNotifier. There is
// nothing to hijack: clients that upgrade connections use a listener.
type response struct {
	header  http.Header
	pipe    *io.PipeWriter
	body    *responseBody
	started chan struct{} // closed when status and header are final
	gone    chan bool
	req     *http.Request

	once   sync.Once
	status int
	sent   http.Header
}

var (
	_ http.Flusher = (*response)(nil)
	//lint:ignore SA1019 upstream's watch handler requires it
	_ http.CloseNotifier = (*response)(nil)
)

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		return // informational; the final one follows
	}
	r.once.Do(func() {
		r.status = status
		r.sent = r.header.Clone()
		close(r.started)
	})
}

func (r *response) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if len(p) == 0 {
		return 0, nil // a write of nothing would wait for a reader
	}
	return r.pipe.Write(p)
}

// Flush sends the header; data is never buffered.
func (r *response) Flush() { r.WriteHeader(http.StatusOK) }

// CloseNotify returns a channel that never fires: the request's context says
// when the client is gone.
func (r *response) CloseNotify() <-chan bool { return r.gone }

// finish ends the answer after the handler returned or panicked. A panic is
// the client's error and ends here, as in net/http.
func (r *response) finish() {
	err := io.EOF
	if p := recover(); p != nil {
		err = fmt.Errorf("the handler of the control plane panicked: %v", p)
		r.WriteHeader(http.StatusInternalServerError)
	}
	r.WriteHeader(http.StatusOK)
	_ = r.pipe.CloseWithError(err) // always nil
}

func (r *response) response() *http.Response {
	return &http.Response{
		Status:        http.StatusText(r.status),
		StatusCode:    r.status,
		Proto:         "HTTP/2.0",
		ProtoMajor:    2,
		Header:        r.sent,
		Body:          r.body,
		ContentLength: -1,
		Request:       r.req,
	}
}

// responseBody ends the request when the client stops reading.
type responseBody struct {
	*io.PipeReader
	done func()
}

func (b *responseBody) Close() error {
	b.done()
	return b.PipeReader.Close()
}
