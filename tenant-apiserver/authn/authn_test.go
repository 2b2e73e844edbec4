package authn_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sublet.dev/tenant-apiserver/authn"
	"sublet.dev/test/issuer"
)

const audience = "tenant"

// config is a document with an issuer.
func config(t *testing.T, i *issuer.Issuer, changes ...func(jwt map[string]any)) []byte {
	t.Helper()
	jwt := map[string]any{
		"issuer": map[string]any{"url": i.URL(), "audiences": []string{audience}, "certificateAuthority": i.CA()},
		"claimMappings": map[string]any{
			"username": map[string]any{"claim": "sub", "prefix": "oidc:"},
			"groups":   map[string]any{"claim": "groups", "prefix": ""},
		},
	}
	for _, change := range changes {
		change(jwt)
	}
	return document(t, jwt)
}

func document(t *testing.T, jwts ...map[string]any) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": jwts})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// bare takes names as they are in tokens.
func bare(jwt map[string]any) {
	jwt["claimMappings"] = map[string]any{
		"username": map[string]any{"expression": "claims.sub"},
		"groups":   map[string]any{"expression": "claims.groups"},
	}
}

// dials counts connections.
type dials struct{ usual, direct atomic.Int64 }

func start(t *testing.T) (*authn.Issuers, *dials) {
	t.Helper()
	var d dials
	dial := func(n *atomic.Int64) authn.Dial {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			n.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	i := authn.New(t.Context(), authn.Config{ID: t.Name(), Own: []string{"https://own"}, Usual: dial(&d.usual), Direct: dial(&d.direct)})
	t.Cleanup(i.Close)
	return i, &d
}

func set(t *testing.T, i *authn.Issuers, data []byte) {
	t.Helper()
	c, err := authn.Parse(data, "https://own")
	if err == nil {
		err = i.Set(c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// who returns whose token it is: NAME[GROUP,…], "" when it is nobody's, or the error.
func who(t *testing.T, i *authn.Issuers, token string) string {
	t.Helper()
	r, ok, err := i.AuthenticateToken(t.Context(), token)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case !ok:
		return ""
	}
	return r.User.GetName() + "[" + strings.Join(r.User.GetGroups(), ",") + "]"
}

// Tokens that are not what they should be are refused, beside one that is.
func TestTokens(t *testing.T) {
	is, other := issuer.New(t), issuer.New(t)
	i, _ := start(t)
	if got := who(t, i, is.Token(is.Claims(audience, "jane"))); got != "" {
		t.Errorf("without issuers: %s", got)
	}
	set(t, i, config(t, is))
	claims := func(change func(issuer.Claims)) issuer.Claims {
		c := is.Claims(audience, "jane", "dev")
		change(c)
		return c
	}
	for name, token := range map[string]string{
		"expired":          is.Token(claims(func(c issuer.Claims) { c["exp"] = time.Now().Add(-time.Hour).Unix() })),
		"without an end":   is.Token(claims(func(c issuer.Claims) { delete(c, "exp") })),
		"from the future":  is.Token(claims(func(c issuer.Claims) { c["nbf"] = time.Now().Add(time.Hour).Unix() })),
		"wrong audience":   is.Token(claims(func(c issuer.Claims) { c["aud"] = "another" })),
		"no audience":      is.Token(claims(func(c issuer.Claims) { delete(c, "aud") })),
		"no user":          is.Token(claims(func(c issuer.Claims) { delete(c, "sub") })),
		"wrong issuer":     is.Token(claims(func(c issuer.Claims) { c["iss"] = other.URL() })),
		"signed by others": other.Token(is.Claims(audience, "jane", "dev")),
		"other issuer":     other.Token(other.Claims(audience, "jane", "dev")),
		"alg none":         is.Unsigned(claims(func(issuer.Claims) {})),
		"HS256":            is.Confused(claims(func(issuer.Claims) {})),
		"cut short":        strings.TrimSuffix(is.Token(claims(func(issuer.Claims) {})), "AA")[:100],
		"nothing":          "",
		"dots":             "..",
		"masters":          is.Token(is.Claims(audience, "jane", "dev", "system:masters")),
		"nodes":            is.Token(is.Claims(audience, "jane", "system:nodes")),
	} {
		got := who(t, i, token)
		if got != "" && !strings.HasPrefix(got, "error:") {
			t.Errorf("%s: it is %s", name, got)
		}
		if want := "oidc:jane[dev]"; who(t, i, is.Token(is.Claims(audience, "jane", "dev"))) != want {
			t.Fatalf("%s: the good token is not %s", name, want)
		}
	}
}

// Names of the system are nobody's, however a configuration maps claims.
func TestReservedNames(t *testing.T) {
	is := issuer.New(t)
	i, _ := start(t)
	for name, change := range map[string]func(map[string]any){
		"expressions": bare,
		"prefix": func(jwt map[string]any) {
			jwt["claimMappings"] = map[string]any{"username": map[string]any{"claim": "sub", "prefix": "system:"}, "groups": map[string]any{"expression": "['system:' + claims.groups[0]]"}}
		},
		"the same rule": func(jwt map[string]any) {
			bare(jwt)
			jwt["userValidationRules"] = []any{map[string]any{"expression": "!user.username.startsWith('system:')"}}
		},
	} {
		set(t, i, config(t, is, change))
		for _, c := range []issuer.Claims{
			is.Claims(audience, "system:admin", "dev"), is.Claims(audience, "system:node:n1", "system:nodes"),
			is.Claims(audience, "system:serviceaccount:default:x", "dev"), is.Claims(audience, "jane", "system:masters"),
		} {
			if got := who(t, i, is.Token(c)); !strings.HasPrefix(got, "error:") || !strings.Contains(got, "system:") {
				t.Errorf("%s: %v is %s", name, c["sub"], got)
			}
		}
		if got := who(t, i, is.Token(is.Claims(audience, "jane", "dev"))); name != "prefix" && got != "jane[dev]" {
			t.Errorf("%s: jane is %s", name, got)
		}
	}
}

// New keys are fetched when a token has one, and old ones are worth nothing.
func TestRotatedKeys(t *testing.T) {
	is := issuer.New(t)
	i, _ := start(t)
	set(t, i, config(t, is))
	old := is.Token(is.Claims(audience, "jane"))
	if got := who(t, i, old); got != "oidc:jane[]" {
		t.Fatal(got)
	}
	is.Rotate()
	if got := who(t, i, is.Token(is.Claims(audience, "jane"))); got != "oidc:jane[]" {
		t.Errorf("the new key: %s", got)
	}
	if got := who(t, i, old); !strings.HasPrefix(got, "error:") {
		t.Errorf("the old key: %s", got)
	}
}

// Issuers come and go without disturbing those that stay.
func TestChange(t *testing.T) {
	a, b := issuer.New(t), issuer.New(t)
	i, _ := start(t)
	entry := func(is *issuer.Issuer) map[string]any { return jwtOf(t, config(t, is)) }
	is := func(want ...*issuer.Issuer) {
		t.Helper()
		for _, s := range []*issuer.Issuer{a, b} {
			got := who(t, i, s.Token(s.Claims(audience, "jane")))
			if slices.Contains(want, s) != (got == "oidc:jane[]") {
				t.Errorf("a token of %s: %q", s.URL(), got)
			}
		}
	}
	set(t, i, document(t, entry(a)))
	is(a)
	asked := a.Asked.Load()
	set(t, i, document(t, entry(a), entry(b)))
	is(a, b)
	if n := a.Asked.Load(); n != asked {
		t.Errorf("the issuer that stays was asked %d times again", n-asked)
	}
	set(t, i, document(t, entry(b)))
	is(b)
	set(t, i, nil)
	is()
	set(t, i, document(t, entry(a)))
	is(a)
	i.Close()
	set(t, i, document(t, entry(b))) // too late
	if got := who(t, i, b.Token(b.Claims(audience, "jane"))); got == "oidc:jane[]" {
		t.Error("a closed authenticator takes another issuer")
	}
}

// What is fetched goes the way that the configuration asks for, by https, and to a
// bound.
func TestWays(t *testing.T) {
	var plain atomic.Int64
	insecure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { plain.Add(1) }))
	t.Cleanup(insecure.Close)
	for name, c := range map[string]struct {
		selector      string
		document      map[string]any
		usual, direct bool
		good          bool
	}{
		"usual":          {usual: true, good: true},
		"cluster":        {selector: "cluster", usual: true, good: true},
		"direct":         {selector: "controlplane", direct: true, good: true},
		"keys by http":   {document: map[string]any{"jwks_uri": insecure.URL}, usual: true},
		"no end":         {document: map[string]any{"x": strings.Repeat("x", 2<<20)}, usual: true},
		"another's name": {document: map[string]any{"issuer": "https://elsewhere"}, usual: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := issuer.New(t)
			is.Announce(c.document)
			i, d := start(t)
			set(t, i, config(t, is, func(jwt map[string]any) { jwt["issuer"].(map[string]any)["egressSelectorType"] = c.selector }))
			got := who(t, i, is.Token(is.Claims(audience, "jane")))
			if (got == "oidc:jane[]") != c.good || !c.good && !strings.HasPrefix(got, "error:") {
				t.Errorf("it is %q", got)
			}
			if (d.usual.Load() > 0) != c.usual || (d.direct.Load() > 0) != c.direct {
				t.Errorf("%d usual and %d direct connections", d.usual.Load(), d.direct.Load())
			}
			if plain.Load() > 0 {
				t.Error("it asked without TLS")
			}
		})
	}
}

// Configurations that cannot be used are refused, with the field.
func TestParse(t *testing.T) {
	is := issuer.New(t)
	issuerOf := func(jwt map[string]any) map[string]any { return jwt["issuer"].(map[string]any) }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no document":   {[]byte("{"), "authentication configuration"},
		"another kind":  {[]byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[]}`), "EncryptionConfiguration"},
		"unknown field": {config(t, is, func(j map[string]any) { j["issuers"] = 1 }), "issuers"},
		"no audience":   {config(t, is, func(j map[string]any) { delete(issuerOf(j), "audiences") }), "jwt[0].issuer.audiences"},
		"http":          {config(t, is, func(j map[string]any) { issuerOf(j)["url"] = "http://x" }), "https"},
		"own issuer":    {config(t, is, func(j map[string]any) { issuerOf(j)["url"] = "https://own" }), "disallowed"},
		"no CA":         {config(t, is, func(j map[string]any) { issuerOf(j)["certificateAuthority"] = "x" }), "certificateAuthority"},
		"no prefix": {config(t, is, func(j map[string]any) {
			j["claimMappings"] = map[string]any{"username": map[string]any{"claim": "sub"}}
		}), "prefix"},
		"wrong CEL": {config(t, is, func(j map[string]any) {
			j["claimMappings"] = map[string]any{"username": map[string]any{"expression": "claims.("}}
		}), "expression"},
		"twice":           {document(t, jwtOf(t, config(t, is)), jwtOf(t, config(t, is))), "Duplicate"},
		"anonymous":       {[]byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":[],"anonymous":{"enabled":true}}`), "anonymous"},
		"larger than all": {append(config(t, is), strings.Repeat(" ", authn.MaxSize)...), "bytes"},
	} {
		if _, err := authn.Parse(c.data, "https://own"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, data := range map[string][]byte{"a good one": config(t, is), "nothing": nil, "nobody": document(t)} {
		if _, err := authn.Parse(data, "https://own"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func jwtOf(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var c struct{ JWT []map[string]any }
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c.JWT[0]
}
