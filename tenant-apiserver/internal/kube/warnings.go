package kube

import (
	"context"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"
)

// What clients are warned of when they write it: it is stored, and nobody here carries
// it out.
const (
	warnIngress      = "an Ingress is stored, but your plan has no ingress class, so the provider does not carry it out: use a Service of type NodePort, if your plan has node ports [ingress]"
	warnLoadBalancer = "no load balancer is offered: the Service's external address stays pending; its node ports work, if your plan has any [load-balancer]"
	warnExternalIPs  = "spec.externalIPs leads nowhere: addresses outside of your cluster are the provider's"
)

// warn tells a client what will not be carried out.
func (t *tenantAdmission) warn(ctx context.Context, a admission.Attributes) {
	if a.GetSubresource() != "" {
		return
	}
	switch o := a.GetObject().(type) {
	case *networking.Ingress:
		if t.terms == nil || len(t.terms().Ingress.Classes) == 0 {
			warning.AddWarning(ctx, "", warnIngress)
		}
	case *core.Service:
		if o.Spec.Type == core.ServiceTypeLoadBalancer && (t.terms == nil || !t.terms().LoadBalancers.Offered) {
			warning.AddWarning(ctx, "", warnLoadBalancer)
		}
		//lint:ignore SA1019 tenants may write it, and are told that it does nothing
		if len(o.Spec.ExternalIPs) > 0 {
			warning.AddWarning(ctx, "", warnExternalIPs)
		}
	}
}
