package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
)

const (
	// rangeInterval is how often it is looked whether the ServiceCIDR is there, as
	// upstream's controller does.
	rangeInterval = 10 * time.Second
	// rangeRetry is the pause between two looks until it is.
	rangeRetry = 100 * time.Millisecond
)

// serviceRange keeps the ServiceCIDR "kubernetes", without which no Service gets an
// address. Upstream's controller for it has an informer and an event broadcaster of
// its own, and is not ready for 100 ms; this one reads the informer that is there.
type serviceRange struct {
	cidrs  []string
	client kubernetes.Interface
	lister networkinglisters.ServiceCIDRLister
	there  chan struct{} // closed by run once the ServiceCIDR is there
}

func newServiceRange(cidrs []string, client kubernetes.Interface, lister networkinglisters.ServiceCIDRLister) *serviceRange {
	return &serviceRange{cidrs: cidrs, client: client, lister: lister, there: make(chan struct{})}
}

// await waits until the ServiceCIDR is there.
func (r *serviceRange) await(ctx context.Context) {
	select {
	case <-r.there:
	case <-ctx.Done():
	}
}

// run keeps the ServiceCIDR until ctx ends.
func (r *serviceRange) run(ctx context.Context) {
	err := wait.PollUntilContextCancel(ctx, rangeRetry, true, func(ctx context.Context) (bool, error) {
		return r.ensure(ctx) == nil, nil
	})
	if err != nil {
		return
	}
	close(r.there)
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := r.ensure(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The range of service addresses cannot be kept")
		}
	}, rangeInterval)
}

// ensure makes what is missing of the ServiceCIDR: all of it, or the range of a second
// family that the control plane did not have before. One that is different otherwise,
// goes, or is not ready for a reason is left alone.
func (r *serviceRange) ensure(ctx context.Context) error {
	c, err := r.lister.Get(defaultservicecidr.DefaultServiceCIDRName)
	api := r.client.NetworkingV1().ServiceCIDRs()
	if apierrors.IsNotFound(err) {
		c, err = api.Create(ctx, defaultRange(r.cidrs), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // the informer is behind
			c, err = api.Get(ctx, defaultservicecidr.DefaultServiceCIDRName, metav1.GetOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("range of service addresses: %w", err)
	}
	if c.DeletionTimestamp == nil && len(r.cidrs) == 2 && slices.Equal(c.Spec.CIDRs, r.cidrs[:1]) {
		c = c.DeepCopy()
		c.Spec.CIDRs = r.cidrs
		if c, err = api.Update(ctx, c, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("second range of service addresses: %w", err)
		}
	}
	if c.DeletionTimestamp != nil || !slices.Equal(c.Spec.CIDRs, r.cidrs) || decided(c) {
		return nil
	}
	c = c.DeepCopy()
	markReady(c)
	if _, err = api.UpdateStatus(ctx, c, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("range of service addresses: %w", err)
	}
	return nil
}

func defaultRange(cidrs []string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: defaultservicecidr.DefaultServiceCIDRName},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
	}
}

func markReady(c *networkingv1.ServiceCIDR) {
	apimeta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: "Kubernetes default Service CIDR is ready",
	})
}

// decided says whether somebody has said whether the ServiceCIDR is ready.
func decided(c *networkingv1.ServiceCIDR) bool {
	ready := apimeta.FindStatusCondition(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	return ready != nil && ready.Status != metav1.ConditionUnknown
}
