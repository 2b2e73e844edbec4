package syncer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	clientremote "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	streamforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// fakeKubelet is a kubelet of the host whose containers answer with what they were
// asked.
func fakeKubelet() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", func(rw http.ResponseWriter, r *http.Request) {
		if r.PathValue("container") == "waiting" {
			http.Error(rw, fmt.Sprintf("container %q in pod %q is waiting to start", "waiting", r.PathValue("pod")), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(rw, "log of %s tail %s\n", r.PathValue("container"), r.URL.Query().Get("tailLines"))
	})
	protocols := []string{"v4.channel.k8s.io"} // what kubelets speak over SPDY
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", func(rw http.ResponseWriter, r *http.Request) {
		if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
			execByWebSocket(rw, r)
			return
		}
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(rw, r, echo{}, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"], options, time.Minute, time.Minute, protocols)
	})
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", func(rw http.ResponseWriter, r *http.Request) {
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeAttach(rw, r, echo{}, r.PathValue("pod"), "", r.PathValue("container"), options, time.Minute, time.Minute, protocols)
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(rw http.ResponseWriter, r *http.Request) {
		options, err := streamforward.NewV4Options(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		streamforward.ServePortForward(rw, r, echo{}, r.PathValue("pod"), "", options, time.Minute, time.Minute, []string{"portforward.k8s.io"})
	})
	return mux
}

// v5 is the protocol of exec over WebSockets.
const v5 = "v5.channel.k8s.io"

// execByWebSocket is exec of a kubelet that declares ExtendWebSocketsToKubelet (KEP-4006).
// The command "break" breaks the connection off before it has said how it ended.
func execByWebSocket(rw http.ResponseWriter, r *http.Request) {
	kept := &keeper{ResponseWriter: rw}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{v5: {Binary: true, Channels: []wsstream.ChannelType{
		wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel,
	}}})
	_, channels, err := conn.Open(kept, r)
	if err != nil {
		return // it was answered
	}
	defer conn.Close()
	command := strings.Join(r.URL.Query()["command"], " ")
	fmt.Fprintf(channels[1], "%s runs %s by WebSocket: %s\n", r.PathValue("container"), command, r.Header.Get("Sec-Websocket-Protocol"))
	if command == "break" {
		_ = kept.conn.Close()
		return
	}
	_, _ = io.Copy(channels[1], channels[0]) // what is lost the test misses
	_, _ = io.WriteString(channels[3], `{"status":"Success"}`)
}

// keeper keeps the connection that is taken from it.
type keeper struct {
	http.ResponseWriter
	conn net.Conn
}

func (k *keeper) Hijack() (conn net.Conn, rw *bufio.ReadWriter, err error) {
	k.conn, rw, err = k.ResponseWriter.(http.Hijacker).Hijack()
	return k.conn, rw, err
}

// echo is a container that says what it hears.
type echo struct{}

func (echo) ExecInContainer(_ context.Context, _ string, _ string, container string, cmd []string, in io.Reader, out, _ io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	fmt.Fprintf(out, "%s runs %s tty=%v\n", container, strings.Join(cmd, " "), tty)
	_, err := io.Copy(out, in)
	return err
}

func (echo) AttachContainer(_ context.Context, _ string, _ string, container string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	fmt.Fprintf(out, "attached to %s\n", container)
	_, err := io.Copy(out, in)
	return err
}

func (echo) PortForward(_ context.Context, _ string, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := fmt.Fprintf(stream, "port %d", port)
	return err
}

var (
	_ remotecommand.Executor = echo{}
	_ remotecommand.Attacher = echo{}
)

func TestStreams(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "web")
	own.Spec.Containers = append(own.Spec.Containers, corev1.Container{Name: "waiting", Image: "w:1"})
	own = create(t, own)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	waitTenantPod(t, ns, "web", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	pods := w.tenant.CoreV1().Pods(ns)

	t.Run("log", func(t *testing.T) {
		tail := int64(7)
		log, err := pods.GetLogs("web", &corev1.PodLogOptions{Container: "app", TailLines: &tail}).DoRaw(t.Context())
		if err != nil || string(log) != "log of app tail 7\n" {
			t.Errorf("%q, %v", log, err)
		}
	})
	t.Run("an error of the kubelet has the tenant's names", func(t *testing.T) {
		_, err := pods.GetLogs("web", &corev1.PodLogOptions{Container: "waiting"}).Stream(t.Context())
		if err == nil || !strings.Contains(err.Error(), `container "waiting" in pod "web" is waiting to start`) {
			t.Errorf("%v", err)
		}
	})
	post := func(subresource string, options *corev1.PodExecOptions) *url.URL {
		r := w.tenant.CoreV1().RESTClient().Post().Resource("pods").Namespace(ns).Name("web").SubResource(subresource)
		if options != nil {
			r = r.VersionedParams(options, scheme.ParameterCodec)
		}
		return r.URL()
	}
	options := &corev1.PodExecOptions{Container: "app", Command: []string{"cat", "-"}, Stdin: true, Stdout: true, Stderr: true}
	stream := func(e clientremote.Executor, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var out, errs bytes.Buffer
		if err := e.StreamWithContext(ctx, clientremote.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs}); err != nil {
			t.Errorf("%v (%s)", err, &errs)
		}
		return out.String()
	}
	t.Run("exec over SPDY", func(t *testing.T) {
		if got := stream(clientremote.NewSPDYExecutor(w.tenantConfig, "POST", post("exec", options))); got != "app runs cat - tty=false\nhello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("exec over WebSocket", func(t *testing.T) {
		const token = "base64url.bearer.authorization.k8s.io.dG9rZW4" // the kubelet would say if it got there
		if got := stream(clientremote.NewWebSocketExecutorForProtocols(w.tenantConfig, "GET", post("exec", options).String(), v5, token)); got != "app runs cat - by WebSocket: "+v5+"\nhello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("a WebSocket that breaks off is no success", func(t *testing.T) {
		breaking := &corev1.PodExecOptions{Container: "app", Command: []string{"break"}, Stdout: true}
		e, err := clientremote.NewWebSocketExecutorForProtocols(w.tenantConfig, "GET", post("exec", breaking).String(), v5)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var out bytes.Buffer
		if err := e.StreamWithContext(ctx, clientremote.StreamOptions{Stdout: &out}); err == nil || ctx.Err() != nil || out.String() != "app runs break by WebSocket: "+v5+"\n" {
			t.Errorf("%q, %v", &out, err)
		}
	})
	t.Run("attach", func(t *testing.T) {
		if got := stream(clientremote.NewSPDYExecutor(w.tenantConfig, "POST", post("attach", &corev1.PodExecOptions{Container: "app", Stdin: true, Stdout: true, Stderr: true}))); got != "attached to app\nhello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("port-forward", func(t *testing.T) { forward(t, post("portforward", nil)) })
	t.Run("not to a host pod of an older pod", func(t *testing.T) {
		none := int64(0)
		if err := pods.Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Fatal(err)
		}
		_, err := pods.GetLogs("web", &corev1.PodLogOptions{Container: "app"}).DoRaw(t.Context())
		if err == nil {
			t.Error("a log without a pod")
		}
		dropPod(t, own, hostPod)
	})
}

// forward reads what a port of the pod says.
func forward(t *testing.T, to *url.URL) {
	transport, upgrader, err := spdy.RoundTripperFor(w.tenantConfig)
	if err != nil {
		t.Fatal(err)
	}
	connection, _, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", to).Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
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
	got, err := io.ReadAll(data)
	if err != nil || string(got) != "port 8080" {
		t.Errorf("%q, %v", got, err)
	}
}
