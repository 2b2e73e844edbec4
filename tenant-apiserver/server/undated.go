package server

import (
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

// undated leaves out of the documents about the API when they were put together
// (Last-Modified, RFC 9110, 8.8.2): upstream does that at each start, so also after a
// sleep. Whether a document is another says its ETag.
func undated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/openapi/") {
			w = responsewriter.WrapForHTTP1Or2(undatedWriter{w})
		}
		next.ServeHTTP(w, r)
	})
}

type undatedWriter struct{ http.ResponseWriter }

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w undatedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w undatedWriter) WriteHeader(code int) {
	w.Header().Del("Last-Modified")
	w.ResponseWriter.WriteHeader(code)
}
