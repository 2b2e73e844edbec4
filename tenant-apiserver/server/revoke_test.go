package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"sublet.dev/tenant-apiserver/plan"
)

// stream is a request that lasts until one of its sides ends it.
type stream struct {
	ended chan struct{}      // closed when its client knows that it has ended
	say   func(string) error // has the other side say something; nil: it always does

	mu   sync.Mutex
	said strings.Builder
}

// newStream returns one that says what there is to read, and ends when there is no
// more.
func newStream(from io.Reader, say func(string) error) *stream {
	s := &stream{ended: make(chan struct{}), say: say}
	go func() {
		defer close(s.ended)
		for buf := make([]byte, 4096); ; {
			n, err := from.Read(buf)
			s.mu.Lock()
			s.said.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *stream) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.said.String(), text)
}

func (s *stream) length() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Len()
}

// alive wants something to come through the stream.
func (s *stream) alive(t *testing.T, what, text string) {
	t.Helper()
	before := s.length()
	if s.say != nil {
		if err := s.say(text); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	await(t, what+" goes on", func(context.Context) (bool, error) {
		select {
		case <-s.ended:
			return false, fmt.Errorf("it has ended")
		default:
			return s.say == nil && s.length() > before || s.say != nil && s.has(text), nil
		}
	})
}

// streamer opens all streams that there are, with a credential.
type streamer struct {
	m  *member
	ns string
}

// open returns the streams, each of which has said something.
func (o streamer) open(t *testing.T, config *rest.Config) map[string]*stream {
	t.Helper()
	streams := map[string]*stream{"a watch": o.watch(t, config), "the log": o.log(t, config)}
	exec := &corev1.PodExecOptions{Command: []string{"cat", "-"}, Stdin: true, Stdout: true}
	attach := &corev1.PodAttachOptions{Stdin: true, Stdout: true}
	for subresource, options := range map[string]runtime.Object{"exec": exec, "attach": attach} {
		to := o.subresource(t, config, subresource, options)
		plain, err := remotecommand.NewSPDYExecutor(config, "POST", to)
		if err != nil {
			t.Fatal(err)
		}
		socket, err := remotecommand.NewWebSocketExecutor(config, "GET", to.String())
		if err != nil {
			t.Fatal(err)
		}
		streams[subresource+" over SPDY"], streams[subresource+" over WebSocket"] = o.run(t, plain), o.run(t, socket)
	}
	for way, dialer := range o.dialers(t, config) {
		streams["port-forward over "+way] = o.forward(t, dialer)
	}
	for what, s := range streams {
		s.alive(t, what, "before-"+strings.ReplaceAll(strings.ToLower(what), " ", "-"))
	}
	return streams
}

func (o streamer) subresource(t *testing.T, config *rest.Config, name string, options runtime.Object) *url.URL {
	r := client(t, config).CoreV1().RESTClient().Post().Namespace(o.ns).Resource("pods").Name("web").SubResource(name)
	if options != nil {
		r = r.VersionedParams(options, scheme.ParameterCodec)
	}
	return r.URL()
}

// watch says the names of the ConfigMaps that somebody else makes.
func (o streamer) watch(t *testing.T, config *rest.Config) *stream {
	w, err := client(t, config).CoreV1().ConfigMaps(o.ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	read, write := io.Pipe()
	t.Cleanup(func() { _ = read.Close() })
	go func() {
		defer write.Close()
		for e := range w.ResultChan() {
			if m, ok := e.Object.(*corev1.ConfigMap); ok {
				fmt.Fprintln(write, m.Name)
			}
		}
	}()
	admin := client(t, o.m.admin(t))
	return newStream(read, func(text string) error {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: text + "-"}}
		_, err := admin.CoreV1().ConfigMaps(o.ns).Create(t.Context(), m, metav1.CreateOptions{})
		return err
	})
}

func (o streamer) log(t *testing.T, config *rest.Config) *stream {
	log, err := client(t, config).CoreV1().Pods(o.ns).GetLogs("web", &corev1.PodLogOptions{Container: "c", Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return newStream(log, nil)
}

// run runs an exec or attach, which says what it hears.
func (o streamer) run(t *testing.T, e remotecommand.Executor) *stream {
	in, write := io.Pipe()
	read, out := io.Pipe()
	t.Cleanup(func() { _ = write.Close(); _ = read.Close() })
	go func() {
		err := e.StreamWithContext(context.WithoutCancel(t.Context()), remotecommand.StreamOptions{Stdin: in, Stdout: out})
		_ = out.CloseWithError(err)
	}()
	return newStream(read, func(text string) error {
		_, err := io.WriteString(write, text)
		return err
	})
}

// dialers are the ways of a port-forward, as kubectl has them.
func (o streamer) dialers(t *testing.T, config *rest.Config) map[string]httpstream.Dialer {
	to := o.subresource(t, config, "portforward", nil)
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(to, config)
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]httpstream.Dialer{"WebSocket": socket, "SPDY": spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, to)}
}

// forward connects to a port, which says what it hears. It ends when the connection
// that all its ports share does: that is what kubectl looks at.
func (o streamer) forward(t *testing.T, dialer httpstream.Dialer) *stream {
	connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, "8080")
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	if _, err := connection.CreateStream(headers); err != nil {
		t.Fatal(err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}
	read, write := io.Pipe()
	t.Cleanup(func() { _ = read.Close() })
	go func() { _, _ = io.Copy(write, data) }() // ends with the connection
	go func() {
		<-connection.CloseChan()
		_ = write.Close()
	}()
	return newStream(read, func(text string) error {
		_, err := io.WriteString(data, text)
		return err
	})
}

// A revoked credential is refused, and all that is open with it ends: watches, and
// what is followed or connected through the API server. What is open with another
// credential of the same user goes on.
func TestRevoke(t *testing.T) {
	m := own(t, "revoked", 3, plan.Terms{})
	config, serial := m.recorded(t, "jane")
	other, _ := m.recorded(t, "jane")
	o := streamer{m, namespace(t, client(t, m.admin(t)))}
	boundPod(t, m, o.ns)
	cut, kept := o.open(t, config), o.open(t, other)

	begun := time.Now()
	m.server.Revoke([]string{serial})
	for what, s := range cut {
		<-s.ended
		t.Logf("%s had ended %v after the credential was revoked", what, time.Since(begun))
	}
	_, err := client(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsUnauthorized(err) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the revoked credential: %v", err)
	}
	if len(kept) != 8 {
		t.Errorf("%d sorts of streams", len(kept))
	}
	for what, s := range kept {
		s.alive(t, what+" of another credential", "after-"+strings.ReplaceAll(strings.ToLower(what), " ", "-"))
	}
}
