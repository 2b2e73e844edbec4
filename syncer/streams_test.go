package syncer

import (
	"net/http"
	"testing"
)

func TestTokensInProtocolsStayWithTheTenant(t *testing.T) {
	for _, c := range []struct {
		name  string
		given []string
		want  string
	}{
		{"protocols are passed on", []string{"v5.channel.k8s.io, v4.channel.k8s.io", "v3.channel.k8s.io"}, "v5.channel.k8s.io, v4.channel.k8s.io, v3.channel.k8s.io"},
		{"a token is not", []string{"base64url.bearer.authorization.k8s.io.dG9rZW4,v4.channel.k8s.io"}, "v4.channel.k8s.io"},
		{"nor a second one", []string{"v4.channel.k8s.io", " base64url.bearer.authorization.k8s.io.dG9rZW4"}, "v4.channel.k8s.io"},
		{"nor one alone", []string{"base64url.bearer.authorization.k8s.io.dG9rZW4"}, ""},
		{"nothing stays nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{}
			for _, v := range c.given {
				header.Add(protocolHeader, v)
			}
			dropToken(header)
			if got := header.Get(protocolHeader); got != c.want || len(header.Values(protocolHeader)) > 1 {
				t.Errorf("%q, want %q", header, c.want)
			}
		})
	}
}
