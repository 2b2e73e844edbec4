package hostcache

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// streams is how many requests a connection of the test's host carries, as kube-apiserver's.
const streams = 100

// oneEverywhere is a host with one ConfigMap in every namespace, whose watches last, and
// that counts the connections made to it.
func oneEverywhere(t *testing.T) (config *rest.Config, connections *atomic.Int64) {
	t.Helper()
	connections = &atomic.Int64{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") == "" {
			fmt.Fprintf(w, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"namespace":%q,"name":"one"}}]}`, r.URL.Path[len("/api/v1/namespaces/"):len(r.URL.Path)-len("/configmaps")])
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	s.EnableHTTP2 = true
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return &rest.Config{Host: s.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, connections
}

// TestFewConnections: views that begin at the same time share connections to the host.
func TestFewConnections(t *testing.T) {
	config, connections := oneEverywhere(t)
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	kind := Kind{Resource: "configmaps", Example: &corev1.ConfigMap{}, Source: Source(api.CoreV1().RESTClient(), "configmaps", "")}
	const views = 4 * streams
	c := New()
	for i := range views {
		s := c.Space(fmt.Sprint("n", i))
		s.View(kind)
		join(t, s)
	}
	eventually(t, "all watches", func() bool { now := c.Stats(); return now.Objects == views && now.Watches == views })
	// Each time that all are full, as many may be opened as begin at once.
	if n, most := connections.Load(), int64(atOnce*(views/streams+1)); n > most {
		t.Errorf("%d connections for %d watches, want at most %d", n, views, most)
	}
}

// TestTurns: no more begin at once than may, unless one has waited for too long.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, begun := newTurns(), time.Now()
		first := all.take(t.Context())
		for range atOnce - 1 {
			all.take(t.Context()) // by what the host does not answer
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("free turns were waited for, %v", took)
		}
		all.take(t.Context())()
		if took := time.Since(begun); took != patience {
			t.Errorf("the one after them waited %v", took)
		}
		time.AfterFunc(time.Second, first) // of the bubble's clock
		begun = time.Now()
		again := all.take(t.Context())
		if took := time.Since(begun); took != time.Second {
			t.Errorf("the next waited %v", took)
		}
		again()
		ended, cancel := context.WithCancel(t.Context())
		all.take(t.Context())
		cancel()
		begun = time.Now()
		all.take(ended)()
		if took := time.Since(begun); took != 0 {
			t.Errorf("who gave up waited %v", took)
		}
	})
}
