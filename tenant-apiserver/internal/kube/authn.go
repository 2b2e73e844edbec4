package kube

import (
	"context"
	"fmt"
	"net"

	apiserverinternal "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	kubeauthenticator "k8s.io/kubernetes/pkg/kubeapiserver/authenticator"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"

	"sublet.dev/tenant-apiserver/authn"
)

// issuer is the issuer of service account tokens, the name every cluster
// uses. Tokens of different control planes differ by their keys.
const issuer = "https://kubernetes.default.svc.cluster.local"

// OwnIssuers are the issuers of tokens that a control plane makes itself.
func OwnIssuers() []string { return []string{issuer} }

// openPaths may be read without credentials: what load balancers and version
// checks need, and nothing that names the tenant or its objects.
var openPaths = []string{"/healthz", "/livez", "/readyz", "/version"}

func openConditions() []apiserverinternal.AnonymousAuthCondition {
	var open []apiserverinternal.AnonymousAuthCondition
	for _, path := range openPaths {
		open = append(open, apiserverinternal.AnonymousAuthCondition{Path: path})
	}
	return open
}

// ofIssuers authenticates requests with tokens of issuers. It is not in upstream's
// union of tokens: what that says of a token it says for ten seconds more, and takes
// as long for a change of issuers.
func ofIssuers(issuers *authn.Issuers) authenticator.Request {
	token := authenticator.WrapAudienceAgnosticToken(authenticator.Audiences{issuer}, issuers)
	return group.NewAuthenticatedGroupAdder(union.New(bearertoken.New(token), websocket.NewProtocolAuthenticator(token)))
}

func (p *parts) publicKeys() (tokens.PublicKeysGetter, error) {
	return tokens.StaticPublicKeysGetter([]any{p.opts.PKI.ServiceAccountKey().Public()})
}

// newIssuers makes the authenticator of tokens that others issue. It knows no issuer
// before it is told of one.
func (p *parts) newIssuers(ctx context.Context) *authn.Issuers {
	usual := authn.Dial(refuseDial)
	if p.opts.DialIssuer != nil {
		usual = p.opts.DialIssuer
	}
	return authn.New(ctx, authn.Config{
		ID: p.generic.APIServerID, Own: OwnIssuers(), Usual: usual, Direct: (&net.Dialer{}).DialContext,
	})
}

// addAuthentication accepts client certificates of the control plane's own
// authority, its own service account tokens, and those of the issuers that it is told
// of.
func (p *parts) addAuthentication(ctx context.Context) error {
	var err error
	if p.clientCA, err = newTrusted(p.opts.PKI.CAPEM()); err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	keys, err := p.publicKeys()
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	p.issuers = p.newIssuers(ctx)
	core := p.informers.Core().V1()
	hooks := p.informers.Admissionregistration().V1()
	config := kubeauthenticator.Config{
		ClientCAContentProvider:        p.clientCA,
		ServiceAccountLookup:           true,
		ServiceAccountIssuers:          []string{issuer},
		APIAudiences:                   authenticator.Audiences{issuer},
		ServiceAccountPublicKeysGetter: keys,
		ServiceAccountTokenGetter: serviceaccount.NewGetterFromClient(p.client,
			core.Secrets().Lister(), core.ServiceAccounts().Lister(), core.Pods().Lister(), core.Nodes().Lister(),
			hooks.ValidatingWebhookConfigurations().Lister(), hooks.MutatingWebhookConfigurations().Lister()),
		SecretsWriter:        p.client.CoreV1(),
		TokenSuccessCacheTTL: p.run.Authentication.TokenSuccessCacheTTL,
		TokenFailureCacheTTL: p.run.Authentication.TokenFailureCacheTTL,
		APIServerID:          p.generic.APIServerID,
	}
	auth, _, _, _, err := config.New(ctx)
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	p.generic.Authentication.Authenticator = union.NewFailOnError(
		union.New(auth, ofIssuers(p.issuers)), anonymous.NewAuthenticator(openConditions()))
	p.generic.Authentication.APIAudiences = authenticator.Audiences{issuer}
	return nil
}
