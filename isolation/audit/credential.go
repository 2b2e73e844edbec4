package audit

import "regexp"

// credentialForms are the forms of credentials that need no context to be
// recognised: a JWT is three base64url parts of which the first begins with the
// encoding of `{"` (RFC 7519), keys in PEM say so (RFC 7468).
var credentialForms = []struct {
	what string
	form *regexp.Regexp
}{
	{"a token (JWT)", regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)},
	{"a private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)},
	{"a private key", regexp.MustCompile(`client-key-data:\s*\S|LS0tLS1CRUdJTi[A-Za-z0-9+/]*(UFJJVkFURS|BSSVZBVEUg|QUklWQVRF)`)},
	{"a bearer token", regexp.MustCompile(`(?i)\bbearer\s+[A-Za-z0-9._~+/-]{20,}`)},
}

// credential says what kind of credential stands in s, "" for none.
func credential(s string) string {
	for _, c := range credentialForms {
		if c.form.MatchString(s) {
			return c.what
		}
	}
	return ""
}
