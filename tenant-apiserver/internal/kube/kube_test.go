package kube

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/audit"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/common"

	"sublet.dev/tenant-apiserver/pki"
)

func TestPrepareFindsUpstreamWhereItWas(t *testing.T) {
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
}

func TestFatalEndsAGoroutineOnly(t *testing.T) {
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	defer klog.LogToStderr(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		klog.Fatal("of one tenant")
		t.Error("Fatal returned")
	}()
	<-ended
}

// A write to a map shared by all control planes would end the process.
func TestDefinitionsOfCustomResourcesHaveNothingToDelete(t *testing.T) {
	if err := Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, shared := range []map[string]common.OpenAPIDefinition{definitions, definitionsV3} {
		for name, d := range shared {
			if d.Schema.Extensions != nil {
				t.Errorf("%s has extensions %v", name, d.Schema.Extensions)
			}
		}
	}
}

func TestCheckHooksNoticesARenamedHook(t *testing.T) {
	if err := checkHooks(&genericapiserver.GenericAPIServer{}, nil); err == nil || !strings.Contains(err.Error(), "review internal/kube") {
		t.Errorf("a server without hooks: %v", err)
	}
}

func roundTrip(t *testing.T, l *loopback, ctx context.Context) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/path?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	return l.RoundTrip(req)
}

func TestLoopbackStreams(t *testing.T) {
	l := newLoopback(t.Context())
	next := make(chan string)
	l.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !fromLoopback(req.Context()) || req.RequestURI != "/path?q=1" {
			t.Errorf("request %s is not marked", req.RequestURI)
		}
		w.Header().Set("X-Kind", "watch")
		w.WriteHeader(http.StatusAccepted)
		for line := range next {
			io.WriteString(w, line+"\n")
			w.(http.Flusher).Flush()
		}
	}))
	resp, err := roundTrip(t, l, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Kind") != "watch" {
		t.Errorf("answer %d %v", resp.StatusCode, resp.Header)
	}
	r := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n"} {
		next <- strings.TrimSpace(want)
		if got, err := r.ReadString('\n'); err != nil || got != want {
			t.Errorf("read %q, %v", got, err)
		}
	}
	close(next)
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("end of answer: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	l.close()
	if _, err := roundTrip(t, l, t.Context()); !errors.Is(err, errNotServing) {
		t.Errorf("after close: %v", err)
	}
}

// What a request makes on its way is a request of its own.
func TestLoopbackTakesNoValues(t *testing.T) {
	type key struct{}
	outer := audit.WithAuditContext(context.WithValue(t.Context(), key{}, "of the outer request"))
	if err := audit.AuditContextFrom(outer).Init(audit.RequestAuditConfig{}, nil); err != nil {
		t.Fatal(err)
	}
	l := newLoopback(t.Context())
	l.serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if v := req.Context().Value(key{}); v != nil {
			t.Errorf("the inner request is %v", v)
		}
		if audit.AuditContextFrom(req.Context()) != nil {
			t.Error("the inner request has the audit record of the outer one")
		}
		w.WriteHeader(http.StatusOK)
	}))
	resp, err := roundTrip(t, l, outer)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	l.close()
}

func TestLoopbackEndsBothSides(t *testing.T) {
	gone := make(chan struct{}, 3)
	wait := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusOK)
		<-req.Context().Done()
		gone <- struct{}{}
	})
	l := newLoopback(t.Context())
	l.serve(wait)
	ctx, cancel := context.WithCancel(t.Context())
	first, err := roundTrip(t, l, ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // the client's context
	<-gone
	second, err := roundTrip(t, l, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Body.Close(); err != nil { // the client stops reading
		t.Fatal(err)
	}
	<-gone
	if _, err := roundTrip(t, l, t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close() // the server; returns when handlers have
	<-gone
	if _, err := io.ReadAll(first.Body); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("body of a cancelled request: %v", err)
	}
}

func TestLoopbackSurvivesAPanic(t *testing.T) {
	l := newLoopback(t.Context())
	defer l.close()
	l.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken") }))
	resp, err := roundTrip(t, l, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("status %d", resp.StatusCode)
	}
	if _, err := io.ReadAll(resp.Body); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("body: %v", err)
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	ca, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "pki"), "x")
	if err != nil {
		t.Fatal(err)
	}
	good := Options{PKI: ca, Endpoint: "bbolt://x", ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22")}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Options){
		"certificate authority": func(o *Options) { o.PKI = nil },
		"storage endpoint":      func(o *Options) { o.Endpoint = "" },
		"another family":        func(o *Options) { o.SecondServiceCIDR = netip.MustParsePrefix("10.100.0.0/22") },
		"10.96.4.1/22":          func(o *Options) { o.ServiceCIDR = netip.MustParsePrefix("10.96.4.1/22") },
		"node ports 9-8":        func(o *Options) { o.NodePorts = [2]int{9, 8} },
		"pod range":             func(o *Options) { o.Host = &HostOptions{PodCIDR: netip.MustParsePrefix("10.244.1.1/16")} },
	} {
		o := good
		spoil(&o)
		if err := o.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to name %q", err, want)
		}
	}
}
