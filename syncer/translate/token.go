package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// defaultTokenSeconds is the life of a token whose projection asks for none: the
// API's default.
const defaultTokenSeconds = 3600

const (
	// refreshPercent of its life is when a token is replaced, as the kubelet does it.
	refreshPercent = 80
	// leastFresh is how long at least a token, or a certificate, is not asked for again:
	// what is issued too old must not make us spin.
	leastFresh = 10 * time.Second
)

// Token is one service account token that a pod asks for.
type Token struct {
	Audience string // "": the tenant's API
	Seconds  int64
}

func tokenOf(p *corev1.ServiceAccountTokenProjection) Token {
	token := Token{Audience: p.Audience, Seconds: defaultTokenSeconds}
	if p.ExpirationSeconds != nil {
		token.Seconds = *p.ExpirationSeconds
	}
	return token
}

// Tokens lists the different tokens that a pod asks for.
func Tokens(tenantPod *corev1.Pod) []Token {
	var tokens []Token
	seen := map[Token]bool{}
	for _, v := range tenantPod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken == nil {
				continue
			}
			if token := tokenOf(s.ServiceAccountToken); !seen[token] {
				seen[token] = true
				tokens = append(tokens, token)
			}
		}
	}
	return tokens
}

// Key returns the key in the Secret under which the token stands.
func (k Token) Key() string {
	hash := sha256.Sum256(fmt.Appendf(nil, "%d:%s", k.Seconds, k.Audience))
	return "token-" + hex.EncodeToString(hash[:8])
}

// refreshKey returns the key under which the time of the token's replacement
// stands. It is not a part of any volume.
func (k Token) refreshKey() string { return k.Key() + ".refresh" }

// Request returns what to ask the tenant's API for: a token that is bound to the
// pod, so that it ends with it.
func (k Token) Request(tenantPod *corev1.Pod) *authenticationv1.TokenRequest {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &k.Seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: tenantPod.Name, UID: tenantPod.UID,
		},
	}}
	if k.Audience != "" {
		request.Spec.Audiences = []string{k.Audience}
	}
	return request
}

// Fresh returns how long the token in the Secret may be used before it is to be
// replaced; not positive when it is to be replaced now. The Secret may be nil.
func (k Token) Fresh(hostSecret *corev1.Secret, now time.Time) time.Duration {
	if hostSecret == nil || len(hostSecret.Data[k.Key()]) == 0 {
		return 0
	}
	refresh, err := time.Parse(time.RFC3339Nano, string(hostSecret.Data[k.refreshKey()]))
	if err != nil {
		return 0
	}
	return refresh.Sub(now)
}

// TokenSecret returns the host Secret for a pod's tokens, with the tokens of have
// (which may be nil) that the pod still asks for.
func (t Translation) TokenSecret(tenantPod *corev1.Pod, have *corev1.Secret) *corev1.Secret {
	want := &corev1.Secret{
		ObjectMeta: t.hostMeta(tenantPod, SuffixTokens),
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{},
	}
	if have == nil {
		return want
	}
	for _, token := range Tokens(tenantPod) {
		for _, key := range []string{token.Key(), token.refreshKey()} {
			if value, ok := have.Data[key]; ok {
				want.Data[key] = value
			}
		}
	}
	return want
}

// Put stores a token that was issued at now.
func (k Token) Put(hostSecret *corev1.Secret, issued *authenticationv1.TokenRequestStatus, now time.Time) {
	fresh := max(issued.ExpirationTimestamp.Sub(now)*refreshPercent/100, leastFresh)
	hostSecret.Data[k.Key()] = []byte(issued.Token)
	hostSecret.Data[k.refreshKey()] = []byte(now.Add(fresh).UTC().Format(time.RFC3339Nano))
}
