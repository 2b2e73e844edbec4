package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"

	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/turns"
)

// A list rests for other tenants, both between the values that it reads and between the
// writes of its answer; what is short does not, and neither does a list that nobody
// waits for. Garbage may gather meanwhile for those that rest.
func TestListsRestForOthers(t *testing.T) {
	for _, c := range []struct {
		method, target string
		alone, rests   bool
	}{
		{http.MethodGet, "/api/v1/configmaps", false, true},
		{http.MethodGet, "/apis/example.org/v1/things", false, true},
		{http.MethodDelete, "/api/v1/namespaces/x/configmaps", false, true},
		{http.MethodGet, "/api/v1/configmaps", true, false},
		{http.MethodGet, "/api/v1/namespaces/x/configmaps/y", false, false},
		{http.MethodPost, "/api/v1/namespaces/x/configmaps", false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			both := turns.New(1)
			if !c.alone {
				end, err := both.Flow().Begin(t.Context(), time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				end()
			}
			var reading, writing, room bool
			g := newGuard(func() *plan.Terms { return &plan.Terms{} }, both.Flow(), 0)
			g.room = func() { room = true }
			h := g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reading = takes(t, func() error { return read(r.Context()) })
				writing = takes(t, func() error { _, err := w.Write([]byte("x")); return err })
			}))
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil))
			if room != c.rests {
				t.Errorf("%s %s, alone %t: room for garbage %t, want %t", c.method, c.target, c.alone, room, c.rests)
			}
			if reading != c.rests || writing != c.rests || answer.Body.String() != "x" {
				t.Errorf("%s %s, alone %t: rests at a value %t, at a write %t, want %t; answer %q", c.method, c.target, c.alone, reading, writing, c.rests, answer.Body)
			}
		})
	}
}

// takes says whether do, after a stretch of computing, takes any time at all, which in a
// bubble only a rest does.
func takes(t *testing.T, do func() error) bool {
	t.Helper()
	<-time.After(turns.Stretch)
	before := time.Now()
	if err := do(); err != nil {
		t.Error(err)
	}
	return time.Since(before) > 0
}

func read(ctx context.Context) error {
	_, _, err := pacedValues{identity.NewEncryptCheckTransformer()}.TransformFromStorage(ctx, nil, value.DefaultContext("x"))
	return err
}
