package kube

import (
	"context"
	"fmt"

	apiserverinternal "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	kubeauthenticator "k8s.io/kubernetes/pkg/kubeapiserver/authenticator"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"
)

// issuer is the issuer of service account tokens, the name every cluster
// uses. Tokens of different control planes differ by their keys.
const issuer = "https://kubernetes.default.svc.cluster.local"

// openPaths may be read without credentials: what load balancers and version
// checks need, and nothing that names the tenant or its objects.
var openPaths = []string{"/healthz", "/livez", "/readyz", "/version"}

func anonymous() apiserverinternal.AnonymousAuthConfig {
	c := apiserverinternal.AnonymousAuthConfig{Enabled: true}
	for _, path := range openPaths {
		c.Conditions = append(c.Conditions, apiserverinternal.AnonymousAuthCondition{Path: path})
	}
	return c
}

func (p *parts) publicKeys() (tokens.PublicKeysGetter, error) {
	return tokens.StaticPublicKeysGetter([]any{p.opts.PKI.ServiceAccountKey().Public()})
}

// addAuthentication accepts client certificates of the control plane's own
// authority and its own service account tokens, nothing else.
func (p *parts) addAuthentication(ctx context.Context) error {
	var err error
	p.clientCA, err = dynamiccertificates.NewStaticCAContent("client-ca", p.opts.PKI.CAPEM())
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	keys, err := p.publicKeys()
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	core := p.informers.Core().V1()
	hooks := p.informers.Admissionregistration().V1()
	config := kubeauthenticator.Config{
		Anonymous:                      anonymous(),
		AuthenticationConfig:           &apiserverinternal.AuthenticationConfiguration{},
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
	p.generic.Authentication.Authenticator = auth
	p.generic.Authentication.APIAudiences = authenticator.Audiences{issuer}
	return nil
}
