package kube

import (
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// stackRoom is how much stack writes of most kinds use.
const stackRoom = 24 << 10

// makeStackRoom has the goroutine's stack grow at once. Upstream answers each request in
// two or three goroutines of its own, with a hundred calls within each other. A stack that
// grows step by step is copied, and looked through call by call, at each of the steps.
//
//go:noinline
func makeStackRoom() byte {
	var room [stackRoom]byte
	return room[len(unknown)]
}

// unknown keeps the compiler from knowing which byte is read.
var unknown = ""

// roomyChain is upstream's chain of filters, with room for what comes after the first of
// them that are called in a goroutine of their own. Requests that last, watches above
// all, keep small stacks.
func roomyChain(handler http.Handler, c *genericapiserver.Config) http.Handler {
	roomy, ask := *c, c.Authentication.Authenticator
	roomy.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if info, ok := request.RequestInfoFrom(r.Context()); ok && !c.LongRunningFunc(r, info) {
			makeStackRoom()
		}
		return ask.AuthenticateRequest(r)
	})
	return genericapiserver.DefaultBuildHandlerChain(handler, &roomy)
}
