// Package issuer is an OpenID Connect issuer for tests: it serves its discovery
// document and its keys by TLS on a loopback address, and signs what a test asks for,
// also what no honest issuer would.
package issuer

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Claims are a token's.
type Claims map[string]any

// Issuer is a running issuer. It ends with its test.
type Issuer struct {
	t      *testing.T
	server *httptest.Server
	// Asked counts the requests it got.
	Asked atomic.Int64

	mu  sync.Mutex
	kid int
	key *rsa.PrivateKey
	// document replaces the discovery document's fields.
	document map[string]any
}

// New starts an issuer.
func New(t *testing.T) *Issuer {
	i := &Issuer{t: t}
	i.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.serveDiscovery)
	mux.HandleFunc("GET /keys", i.serveKeys)
	i.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.Asked.Add(1)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(i.server.Close)
	return i
}

// URL is the issuer's name.
func (i *Issuer) URL() string { return i.server.URL }

// CA is whom to trust to speak to it.
func (i *Issuer) CA() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw}))
}

// Announce replaces fields of the discovery document.
func (i *Issuer) Announce(fields map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.document = fields
}

// Rotate gives it another key; tokens of the one before are not its own any more.
func (i *Issuer) Rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid, i.key = i.kid+1, key
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	d := map[string]any{
		"issuer": i.URL(), "jwks_uri": i.URL() + "/keys", "authorization_endpoint": i.URL() + "/auth", "token_endpoint": i.URL() + "/token",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
	for k, v := range i.document {
		d[k] = v
	}
	_ = json.NewEncoder(w).Encode(d)
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	public := i.key.PublicKey
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": fmt.Sprint(i.kid),
		"n": encode(public.N.Bytes()), "e": encode(big.NewInt(int64(public.E)).Bytes()),
	}}})
}

// Claims are those of an honest token for a user of an audience: it begins now and is
// good for an hour. A test changes what it wants to be wrong.
func (i *Issuer) Claims(audience, user string, groups ...string) Claims {
	now := time.Now()
	return Claims{"iss": i.URL(), "aud": audience, "sub": user, "groups": groups,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

// Token signs with its present key.
func (i *Issuer) Token(c Claims) string {
	return i.token("RS256", c, func(data []byte) []byte {
		sum := sha256.Sum256(data)
		signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
		if err != nil {
			i.t.Fatal(err)
		}
		return signature
	})
}

// Unsigned makes a token that says it needs no signature.
func (i *Issuer) Unsigned(c Claims) string {
	return i.token("none", c, func([]byte) []byte { return nil })
}

// Confused signs with HS256 and the public key, which everybody knows, as the secret.
func (i *Issuer) Confused(c Claims) string {
	return i.token("HS256", c, func(data []byte) []byte {
		der, err := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
		if err != nil {
			i.t.Fatal(err)
		}
		h := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		h.Write(data)
		return h.Sum(nil)
	})
}

func (i *Issuer) token(alg string, c Claims, sign func([]byte) []byte) string {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	head, err := json.Marshal(map[string]any{"alg": alg, "typ": "JWT", "kid": fmt.Sprint(i.kid)})
	if err != nil {
		i.t.Fatal(err)
	}
	body, err := json.Marshal(c)
	if err != nil {
		i.t.Fatal(err)
	}
	data := encode(head) + "." + encode(body)
	return data + "." + encode(sign([]byte(data)))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
