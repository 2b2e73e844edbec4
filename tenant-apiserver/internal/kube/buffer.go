package kube

import (
	"bytes"
	"net/http"
)

// buffer is an http.ResponseWriter that keeps an answer of an inner handler.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
