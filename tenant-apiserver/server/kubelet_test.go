package server

import (
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
)

// fakeNode is a kubelet that says what it was asked.
type fakeNode struct{}

func (*fakeNode) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	fmt.Fprintf(w, "asked for %s", req.URL.Path)
}

// refusePrivileged is the ValidatePod of the tests.
func refusePrivileged(pod *corev1.Pod) error {
	for _, c := range pod.Spec.Containers {
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			return errors.New("spec.containers[0].securityContext.privileged: privileged containers are not for tenants")
		}
	}
	return nil
}
