package server

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/turns"
)

// guard stands between the connections of a control plane and its handler: it
// refuses revoked certificates, and requests above the plan's limits, and has the
// others wait for their turns. Requests of this process do not pass it.
type guard struct {
	terms func() *plan.Terms
	turns *turns.Flow   // nil: nobody is to be fair to
	turn  time.Duration // of a request
	room  func()        // puts collecting garbage off; called for lists that others wait for
	short atomic.Int64  // requests under way
	long  atomic.Int64  // watches and streams under way

	mu      sync.Mutex
	revoked map[string]struct{} // serial numbers; they are never taken back
	conns   map[*trackedConn]struct{}
}

// Every request and every TLS handshake of a client waits for its turn at the
// processors. A turn ends at the latest after these times.
const (
	requestTurn   = turns.Brief
	listTurn      = 500 * time.Millisecond // of what computes all the while
	handshakeTurn = 2 * time.Millisecond   // what one takes to compute, and some more
)

// processors are shared out among the tenants of the process.
var processors = sync.OnceValue(func() *turns.Turns { return turns.New(runtime.GOMAXPROCS(0)) })

// newGuard makes one; flow, if not nil, is where requests wait, and turn how long
// their turns are; 0: as long as everybody's.
func newGuard(terms func() *plan.Terms, flow *turns.Flow, turn time.Duration) *guard {
	return &guard{terms: terms, turns: flow, turn: cmp.Or(turn, requestTurn), room: roomForList, revoked: map[string]struct{}{}, conns: map[*trackedConn]struct{}{}}
}

// revoke refuses certificates of these serial numbers from now on, and closes the
// connections that were made with one.
func (g *guard) revoke(serials []string) {
	g.mu.Lock()
	for _, s := range serials {
		g.revoked[s] = struct{}{}
	}
	var cut []*trackedConn
	for c := range g.conns {
		if _, ok := g.revoked[c.serial]; ok {
			cut = append(cut, c)
		}
	}
	g.mu.Unlock()
	closeAll(cut)
}

// trust closes the connections that were made with certificates which that authority
// has not signed. Who authenticates requests must know of the authority before: whoever
// comes later is its affair.
func (g *guard) trust(a *pki.Authority) {
	closeAll(g.which(func(leaf *x509.Certificate) bool { return !a.Signed(leaf) }))
}

// which returns the connections whose clients' certificates are so.
func (g *guard) which(so func(*x509.Certificate) bool) []*trackedConn {
	g.mu.Lock()
	leaves := make(map[*trackedConn]*x509.Certificate, len(g.conns))
	for c := range g.conns {
		leaves[c] = c.leaf
	}
	g.mu.Unlock()
	var found []*trackedConn
	for c, leaf := range leaves {
		if so(leaf) {
			found = append(found, c)
		}
	}
	return found
}

func closeAll(conns []*trackedConn) {
	for _, c := range conns {
		_ = c.Close() // the peer may be gone already
	}
}

// admit remembers whose certificate a connection came with. It is false when that
// is revoked.
func (g *guard) admit(r *http.Request) bool {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return true
	}
	c, ok := r.Context().Value(connKey{}).(*trackedConn)
	leaf := r.TLS.PeerCertificates[0]
	serial := pki.Serial(leaf.SerialNumber)
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok && c.serial == "" {
		c.leaf, c.serial = leaf, serial
		if !c.closed {
			g.conns[c] = struct{}{}
		}
	}
	_, revoked := g.revoked[serial]
	return !revoked
}

// forget drops a connection that is closed.
func (g *guard) forget(c *trackedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.closed = true
	delete(g.conns, c)
}

// connKey marks the connection in the context of its requests.
type connKey struct{}

// requests says what a request is, as the API server does.
var requests = &apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// lasting are the subresources whose requests last.
var lasting = []string{"attach", "exec", "log", "portforward", "proxy"}

// wrap returns the handler behind the guard.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.admit(r) {
			w.Header().Set("Connection", "close")
			refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "the credential was revoked: ask for another")
			return
		}
		t := g.terms()
		count, most, what := &g.short, t.Limits.Concurrent, "requests"
		info, err := requests.NewRequestInfo(r)
		if err != nil {
			info = &apirequest.RequestInfo{} // upstream refuses it
		}
		if lasts(r, info) {
			count, most, what = &g.long, t.Limits.Streams, "watches and streams"
		}
		defer count.Add(-1)
		if n := count.Add(1); most > 0 && n > int64(most) {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests,
				fmt.Sprintf("the plan %s allows %d %s at a time, and so many are under way: try again", t.Plan, most, what))
			return
		}
		if g.turns != nil {
			end, err := g.turns.Begin(r.Context(), g.turnOf(info))
			if err != nil {
				return // the client is gone
			}
			defer end()
			if computes(info) {
				if g.turns.Shared() {
					g.room()
				}
				w, r = paced(g.turns, w, r)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// handshake is a tls.Config.GetConfigForClient: it waits for a turn.
func (g *guard) handshake(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if g.turns != nil {
		if _, err := g.turns.Begin(hello.Context(), handshakeTurn); err != nil {
			return nil, err
		}
	}
	return nil, nil // the one that there is
}

// turnOf is how long the turn of a request is at most. A list of built-in objects waits
// for nobody and computes as long as it takes. If its turn ended while it does, the next
// would begin beside it: a tenant that lists much would have all processors.
func (g *guard) turnOf(info *apirequest.RequestInfo) time.Duration {
	if g.turn == requestTurn && info.IsResourceRequest && info.Verb == "list" && info.Subresource == "" && builtIn(info.APIGroup) {
		return listTurn
	}
	return g.turn
}

// builtIn says whether a group of APIs is upstream's. Other lists may wait: for a
// tenant's own API servers and for what converts custom resources.
func builtIn(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}

// lasts says whether the request goes on until one of the sides ends it.
func lasts(r *http.Request, info *apirequest.RequestInfo) bool {
	return info.Verb == "watch" || r.URL.Path == AuditURL || info.IsResourceRequest && slices.Contains(lasting, info.Subresource)
}

// requestLasts is lasts for who knows nothing of the request yet.
func requestLasts(r *http.Request) bool {
	info, err := requests.NewRequestInfo(r)
	return err == nil && lasts(r, info)
}

// refuse answers as the API server does.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // the client may be gone
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

// Revoke refuses client certificates of these serial numbers (as [pki.Serial]
// writes them) from now on, and closes what is open with them. It knows them as
// long as the server runs: who starts it again tells it again.
func (s *Server) Revoke(serials []string) { s.guard.revoke(serials) }

// SetAuthority makes another state of the control plane's authority the one that holds,
// from now on: serving certificates are issued by it, clients' certificates are good when
// it has signed them, and pods and API servers are told of its CAs. Connections with
// certificates of a CA that it does not trust any more are closed; all others go on. Its
// files, and its key for service account tokens, must be those of [Config.PKI]. With an
// error all is as it was.
func (s *Server) SetAuthority(a *pki.Authority) error {
	if err := s.instance.SetClientCAs(a.CAPEM()); err != nil {
		return wrap(s.config.Name, err)
	}
	s.certs.set(a)
	s.authority.Store(a)
	s.guard.trust(a)
	return nil
}

// OldConnections returns how many connections are open whose clients' certificates the CA
// before the present one has signed; ok is false when that is not trusted any more, or
// there was none. Who is not connected now is not counted.
func (s *Server) OldConnections() (n int, ok bool) {
	a := s.authority.Load()
	if a.Oldest() == a.Generation() {
		return 0, false
	}
	return len(s.guard.which(a.SignedBefore)), true
}

// SetTerms changes what the plan allows, from now on. What is there or under way
// stays.
func (s *Server) SetTerms(t plan.Terms) {
	s.config.terms.Store(&t)
	if s.file != nil {
		s.file.SetQuota(storeLimit(&t))
	}
}
