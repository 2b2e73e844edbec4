package attack

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// send sends a request and returns the answer.
func send(t *testing.T, transport http.RoundTripper, method, url string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// A03: the name in the TLS handshake decides whose API it is; what the requests on
// the connection say does not.
func TestServerNameDecides(t *testing.T) {
	for _, owner := range []*tenant{w.attacker, w.victim} {
		mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "whose"}, Data: map[string]string{"whose": owner.name}}
		if _, err := client(t, owner.admin(t)).CoreV1().ConfigMaps("default").Create(t.Context(), mark, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	const path = "/api/v1/namespaces/default/configmaps/whose"
	for _, protocol := range []string{"h2", "http/1.1"} {
		config := w.attacker.admin(t)
		config.NextProtos = []string{protocol}
		transport, err := rest.TransportFor(config) // one connection for all requests
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"attacker.test", "victim.test", "victim.test:443", "kubernetes.default.svc", "127.0.0.1", "x"} {
			code, body := send(t, transport, http.MethodGet, config.Host+path, http.Header{"Host": {host}})
			if code != http.StatusOK || !strings.Contains(body, `"whose":"attacker"`) {
				t.Errorf("%s, host %s: %d %s", protocol, host, code, body)
			}
		}
		// The attacker's credentials where the victim's name was said, whatever host.
		victim := w.victim.as(t, "nobody")
		config.TLSClientConfig.ServerName, config.TLSClientConfig.CAData = "victim.test", victim.CAData
		for _, host := range []string{"attacker.test", "victim.test"} {
			if code, body := do(t, config, http.MethodGet, path, http.Header{"Host": {host}}); code != http.StatusUnauthorized {
				t.Errorf("%s, the victim's name, host %s: %d %s", protocol, host, code, body)
			}
		}
		if code, body := do(t, w.victim.admin(t), http.MethodGet, path, http.Header{"Host": {"attacker.test"}}); code != http.StatusOK || !strings.Contains(body, `"whose":"victim"`) {
			t.Errorf("%s, the victim itself: %d %s", protocol, code, body)
		}
	}
}

// A04, A05: headers make nobody somebody else, and cannot take an identity off.
func TestForgedHeaders(t *testing.T) {
	jane := w.attacker.as(t, "jane")
	jane.NextProtos = []string{"http/1.1"} // which has the header Connection
	anonymous := rest.AnonymousClientConfig(jane)
	forged := http.Header{
		"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}, "X-Remote-Extra-Scopes": {"all"}, "X-Remote-Uid": {"1"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-User": {"admin"}, "X-Original-Url": {"/healthz"}, "Forwarded": {"for=127.0.0.1;host=victim.test"},
	}
	for name, strip := range map[string][]string{
		"as they are": nil, "stripped": {"X-Remote-User, X-Remote-Group, Authorization"}, "kept": {"keep-alive, X-Remote-User"},
	} {
		header := forged.Clone()
		if strip != nil {
			header["Connection"] = strip
		}
		if code, _ := do(t, anonymous, http.MethodGet, "/api/v1/namespaces", header); code != http.StatusUnauthorized {
			t.Errorf("%s: without credentials: %d", name, code)
		}
		if code, body := do(t, jane, http.MethodGet, "/api/v1/namespaces", header); code != http.StatusForbidden || !strings.Contains(body, `User \"jane\"`) {
			t.Errorf("%s: jane: %d %s", name, code, body)
		}
	}
	for name, header := range map[string]http.Header{
		"user":   {"Impersonate-User": {"admin"}, "Impersonate-Group": {"system:masters"}},
		"group":  {"Impersonate-User": {"jane"}, "Impersonate-Group": {"system:masters"}},
		"hidden": {"Impersonate-User": {"admin"}, "Impersonate-Group": {"system:masters"}, "Connection": {"Impersonate-User, Impersonate-Group"}},
		"alone":  {"Impersonate-Group": {"system:masters"}},
	} {
		if code, body := do(t, jane, http.MethodGet, "/api/v1/namespaces", header); code == http.StatusOK {
			t.Errorf("jane impersonates %s: %d %s", name, code, body)
		}
	}
	// Whom the tenant lets, may; that ends at the tenant.
	admin := w.attacker.admin(t)
	as := http.Header{"Impersonate-User": {"system:admin"}, "Impersonate-Group": {"system:masters"}}
	if code, body := do(t, admin, http.MethodGet, "/api/v1/namespaces", as); code != http.StatusOK {
		t.Errorf("the administrator impersonates: %d %s", code, body)
	}
	admin.TLSClientConfig.ServerName, admin.TLSClientConfig.CAData = "victim.test", w.victim.ca.CAPEM()
	if code, _ := do(t, admin, http.MethodGet, "/api/v1/namespaces", as); code != http.StatusUnauthorized {
		t.Errorf("at the victim's: %d", code)
	}
}

// forge makes a token of a tenant's key, or of none.
func forge(t *testing.T, alg string, claims map[string]any, sign func(data []byte) []byte) string {
	t.Helper()
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	data := part(map[string]any{"alg": alg, "typ": "JWT"}) + "." + part(claims)
	return data + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(data)))
}

// es256 signs as the token controller of a tenant does.
func es256(t *testing.T, key *ecdsa.PrivateKey) func([]byte) []byte {
	return func(data []byte) []byte {
		sum := sha256.Sum256(data)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	}
}

// A06: what is not a token of this tenant is 401, in whatever way it is not.
func TestBrokenTokens(t *testing.T) {
	token := func(of *tenant) string {
		t.Helper()
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}
		got, err := client(t, of.admin(t)).CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", r, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return got.Status.Token
	}
	for _, of := range []*tenant{w.attacker, w.victim} {
		await(t, "the service account", accountOf(client(t, of.admin(t))))
	}
	good, same := token(w.victim), token(w.attacker) // of the service account of the same name
	parts := strings.Split(good, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		return c
	}
	keep := func(map[string]any) {}
	own := es256(t, w.victim.ca.ServiceAccountKey())
	der, err := x509.MarshalPKIXPublicKey(w.victim.ca.ServiceAccountKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	ask := func(authorization string) int {
		code, _ := do(t, rest.AnonymousClientConfig(w.victim.admin(t)), http.MethodGet, "/api/v1/namespaces", http.Header{"Authorization": {authorization}})
		return code
	}
	for name, authorization := range map[string]string{
		"empty": "Bearer", "a space": "Bearer ", "spaces": "Bearer    ", "another scheme": "Basic YWRtaW46YWRtaW4=", "no scheme": good,
		"not a token": "Bearer x", "dots": "Bearer ..", "cut": "Bearer " + good[:len(good)-3], "without a signature": "Bearer " + parts[0] + "." + parts[1] + ".",
		"alg none":       "Bearer " + forge(t, "none", claims(keep), func([]byte) []byte { return nil }),
		"HS256":          "Bearer " + forge(t, "HS256", claims(keep), func(d []byte) []byte { h := hmac.New(sha256.New, public); h.Write(d); return h.Sum(nil) }),
		"of an attacker": "Bearer " + same,
		"signed by one":  "Bearer " + forge(t, "ES256", claims(keep), es256(t, w.attacker.ca.ServiceAccountKey())),
		"expired":        "Bearer " + forge(t, "ES256", claims(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }), own),
		"for others":     "Bearer " + forge(t, "ES256", claims(func(c map[string]any) { c["aud"] = []string{"https://elsewhere"} }), own),
		"other issuer":   "Bearer " + forge(t, "ES256", claims(func(c map[string]any) { c["iss"] = "https://elsewhere" }), own),
		"another account's": "Bearer " + forge(t, "ES256", claims(func(c map[string]any) {
			c["kubernetes.io"].(map[string]any)["serviceaccount"].(map[string]any)["uid"] = "00000000-0000-0000-0000-000000000000"
		}), own),
	} {
		if code := ask(authorization); code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, code)
		}
	}
	// It is known, and may nothing; so is one that is made as those above are.
	for name, token := range map[string]string{"the good one": good, "one of ours": forge(t, "ES256", claims(keep), own)} {
		if code := ask("Bearer " + token); code != http.StatusForbidden {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// A08: a tenant that is deleted and made again shares nothing with the one before.
func TestSameNameAgain(t *testing.T) {
	first, err := w.tenant(t.Context(), "again", "again-1")
	if err != nil {
		t.Fatal(err)
	}
	old := first.admin(t)
	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "old"}}
	if _, err := client(t, old).CoreV1().ConfigMaps("default").Create(t.Context(), mark, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bearer := rest.AnonymousClientConfig(old)
	bearer.BearerToken = forge(t, "ES256", map[string]any{"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:kube-system:default",
		"aud": []string{"https://kubernetes.default.svc.cluster.local"}, "exp": time.Now().Add(time.Hour).Unix()}, es256(t, first.ca.ServiceAccountKey()))
	w.door.Remove("again-1")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second, err := w.tenant(t.Context(), "again", "again-2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.door.Remove("again-2")
		if err := second.stop(); err != nil {
			t.Error(err)
		}
	})
	var unknown *tls.CertificateVerificationError
	if _, err := client(t, old).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil || !asError(err, &unknown) {
		t.Errorf("the old kubeconfig: %v", err)
	}
	for name, c := range map[string]*rest.Config{"certificate": old, "token": bearer} {
		c.TLSClientConfig.CAData = second.ca.CAPEM() // as if it had been told
		if _, err := client(t, c).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
			t.Errorf("the old %s: %v", name, err)
		}
	}
	maps, err := client(t, second.admin(t)).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		if m.Name == "old" {
			t.Error("the new one has what the old one had")
		}
	}
}

// I06: a token that is for somebody else is not for the API.
func TestTokenForSomebodyElse(t *testing.T) {
	k := client(t, w.attacker.admin(t))
	await(t, "the service account", accountOf(k))
	for _, c := range []struct {
		audiences []string
		want      int
	}{{nil, http.StatusForbidden}, {[]string{"https://host.test"}, http.StatusUnauthorized}, {[]string{"vault"}, http.StatusUnauthorized}} {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: c.audiences}}
		token, err := k.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", r, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{"Authorization": {"Bearer " + token.Status.Token}}
		if code, _ := do(t, rest.AnonymousClientConfig(w.attacker.admin(t)), http.MethodGet, "/api/v1/namespaces", header); code != c.want {
			t.Errorf("a token for %v: %d", c.audiences, code)
		}
	}
}
