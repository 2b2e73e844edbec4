package main

import (
	"net/http"
	"net/http/pprof"
)

// withProfiles adds Go's profiles to what a process answers on a socket that only root
// can open. Stacks and heaps are of all tenants in it, so they are served nowhere else:
//
//	curl --unix-socket DATA/run/cell-0.sock 'http://x/debug/pprof/goroutine?debug=1'
func withProfiles(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
