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
	server "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// fakeNode is a kubelet that says what it was asked, and whose exec echoes.
type fakeNode struct{}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if strings.HasPrefix(req.URL.Path, "/exec/") {
		opts, err := server.NewOptions(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		server.ServeExec(w, req, f, "pod", "uid", "c", req.URL.Query()["command"], opts,
			time.Minute, time.Minute, server.SupportedStreamingProtocols)
		return
	}
	fmt.Fprintf(w, "asked for %s", req.URL.Path)
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
