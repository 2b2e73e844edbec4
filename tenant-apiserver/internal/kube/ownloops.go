package kube

import (
	"context"
	"fmt"
	"sync"

	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"
)

// loop is an upstream controller that is put together here instead of by its
// upstream description.
type loop struct {
	name string
	run  func(ctx context.Context, workers int)
}

// Name implements kcm.Controller.
func (l loop) Name() string { return l.name }

// Run implements kcm.Controller.
func (l loop) Run(ctx context.Context) { l.run(ctx, 1) }

// ownControllers makes those that begin with the others and that upstream's
// descriptions do not make.
func (p *parts) ownControllers(ctx context.Context, c kcm.ControllerContext) ([]kcm.Controller, error) {
	tokens, err := p.newTokenController(c)
	if err != nil {
		return nil, err
	}
	publisher, err := p.newPublisher(c)
	if err != nil {
		return nil, err
	}
	withdrawal, err := p.newWithdrawal()
	if err != nil {
		return nil, err
	}
	for _, f := range []*following{tokens, publisher} {
		if f.next, err = f.make(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return []kcm.Controller{tokens, publisher, withdrawal}, nil
}

// newTokenController makes the one that fills Secrets of type
// service-account-token. Its upstream description reads the key from a file
// and wants a client that only upstream's main can give.
func (p *parts) newTokenController(c kcm.ControllerContext) (*following, error) {
	generator, err := tokens.JWTTokenGenerator(tokens.LegacyIssuer, p.opts.PKI.ServiceAccountKey())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", names.ServiceAccountTokenController, err)
	}
	client, err := c.NewClient("tokens-controller")
	if err != nil {
		return nil, err
	}
	core := c.InformerFactory.Core().V1()
	build := func(ctx context.Context, bundlePEM []byte, to *borrower) (func(context.Context, int), error) {
		controller, err := serviceaccount.NewTokensController(klog.FromContext(ctx), lend(to, core.ServiceAccounts()), lend(to, core.Secrets()), client,
			serviceaccount.TokensControllerOptions{TokenGenerator: generator, RootCA: bundlePEM})
		if err != nil {
			return nil, err
		}
		return controller.Run, nil
	}
	return &following{name: names.ServiceAccountTokenController, of: p.clientCA, hold: p.informers.Hold, build: build}, nil
}

// newPublisher makes the one that writes the ConfigMap kube-root-ca.crt of each
// namespace, which pods know the API server by.
func (p *parts) newPublisher(c kcm.ControllerContext) (*following, error) {
	client, err := c.NewClient("root-ca-cert-publisher")
	if err != nil {
		return nil, err
	}
	core := c.InformerFactory.Core().V1()
	build := func(_ context.Context, bundlePEM []byte, to *borrower) (func(context.Context, int), error) {
		controller, err := rootcacertpublisher.NewPublisher(lend(to, core.ConfigMaps()), lend(to, core.Namespaces()), client, bundlePEM)
		if err != nil {
			return nil, err
		}
		return controller.Run, nil
	}
	return &following{name: names.RootCACertificatePublisherController, of: p.clientCA, hold: p.informers.Hold, build: build}, nil
}

// builtInSchemas are the schemas of built-in types, 6 MB, for all instances.
var builtInSchemas = sync.OnceValue(func() *resolver.DefinitionsSchemaResolver {
	return resolver.NewDefinitionsSchemaResolver(generatedopenapi.GetOpenAPIDefinitions, scheme.Scheme, apiextensionsscheme.Scheme)
})

// newPolicyController makes the one that checks the types in admission
// policies. Its upstream description makes schemas of its own.
func (p *parts) newPolicyController(_ context.Context, c kcm.ControllerContext) (kcm.Controller, error) {
	client, err := c.NewClient(names.ValidatingAdmissionPolicyStatusController)
	if err != nil {
		return nil, err
	}
	checker := &validating.TypeChecker{
		SchemaResolver: builtInSchemas().Combine(&resolver.ClientDiscoveryResolver{Discovery: client.Discovery()}),
		RestMapper:     c.RESTMapper,
	}
	controller, err := validatingadmissionpolicystatus.NewController(
		c.InformerFactory.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		client.AdmissionregistrationV1().ValidatingAdmissionPolicies(), checker)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", names.ValidatingAdmissionPolicyStatusController, err)
	}
	return loop{names.ValidatingAdmissionPolicyStatusController, controller.Run}, nil
}
