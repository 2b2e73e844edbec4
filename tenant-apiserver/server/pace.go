package server

import (
	"context"
	"net/http"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/apiserver/pkg/storage/value"

	"sublet.dev/tenant-apiserver/turns"
)

// computes says whether a request may compute for long: as many values as there are.
func computes(info *apirequest.RequestInfo) bool {
	return info.IsResourceRequest && (info.Verb == "list" || info.Verb == "deletecollection")
}

// paced returns the two sides of a request with the pace of the flow.
func paced(f *turns.Flow, w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	ctx := f.Paced(r.Context())
	return responsewriter.WrapForHTTP1Or2(&pacedWriter{w, ctx}), r.WithContext(ctx)
}

// pacedValues rests between the values of a list: most of what a list computes is
// reading its values. Others' requests get a processor meanwhile.
type pacedValues struct{ value.Transformer }

// TransformFromStorage implements [value.Transformer].
func (p pacedValues) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	turns.Breathe(ctx)
	return p.Transformer.TransformFromStorage(ctx, data, dataCtx)
}

// pacedWriter rests between the writes of an answer: the rest of what a list computes
// is encoding it.
type pacedWriter struct {
	http.ResponseWriter
	ctx context.Context
}

// Unwrap is for [http.ResponseController] and upstream's wrappers.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Write implements [http.ResponseWriter].
func (p *pacedWriter) Write(b []byte) (int, error) {
	turns.Breathe(p.ctx)
	return p.ResponseWriter.Write(b)
}
