package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	server "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// fakeNode is a kubelet that says what it was asked, whose streams echo, and whose logs
// go on and on when somebody follows them.
type fakeNode struct{}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch what, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/"); {
	case what == "exec" || what == "attach":
		opts, err := server.NewOptions(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if what == "attach" {
			server.ServeAttach(w, req, f, "pod", "uid", "c", opts, time.Minute, time.Minute, server.SupportedStreamingProtocols)
			return
		}
		server.ServeExec(w, req, f, "pod", "uid", "c", req.URL.Query()["command"], opts,
			time.Minute, time.Minute, server.SupportedStreamingProtocols)
	case what == "portForward":
		opts, err := portforward.NewV4Options(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, req, f, "pod", "uid", opts, time.Minute, time.Minute, []string{"portforward.k8s.io"})
	case what == "containerLogs" && req.URL.Query().Get("follow") == "true":
		endlessLog(w, req)
	default:
		fmt.Fprintf(w, "asked for %s", req.URL.Path)
	}
}

// endlessLog is a log that gets another line from time to time.
func endlessLog(w http.ResponseWriter, req *http.Request) {
	lines := time.NewTicker(10 * time.Millisecond)
	defer lines.Stop()
	for {
		select {
		case <-lines.C:
			fmt.Fprintln(w, "a line")
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		case <-req.Context().Done():
			return
		}
	}
}

// AttachContainer copies its input.
func (*fakeNode) AttachContainer(_ context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan server.TerminalSize) error {
	_, err := io.Copy(out, in)
	return err
}

// PortForward copies what it gets.
func (*fakeNode) PortForward(_ context.Context, _, _ string, _ int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := io.Copy(stream, stream)
	return err
}

// ExecInContainer says what it runs and copies its input.
func (*fakeNode) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan server.TerminalSize, _ time.Duration) error {
	if _, err := fmt.Fprintf(out, "%s: ", strings.Join(cmd, " ")); err != nil {
		return err
	}
	_, err := io.Copy(out, in)
	return err
}

// refusePrivileged is the ValidatePod of the tests.
func refusePrivileged(pod *corev1.Pod) error {
	if pod.Name == "panic" {
		panic("a rule is broken")
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == "forbidden" {
			return errors.New("spec.ephemeralContainers[0]: not for tenants")
		}
	}
	for _, c := range pod.Spec.Containers {
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			return errors.New("spec.containers[0].securityContext.privileged: privileged containers are not for tenants")
		}
	}
	return nil
}
