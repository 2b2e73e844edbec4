package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"sublet.dev/test/images/operator/site"
)

const (
	finalizer = site.Group + "/register"
	register  = "register" // the ConfigMap with a key for each Site
)

// reconciler makes what Sites ask for.
type reconciler struct {
	client.Client
	namespace string // where the register is
}

func (r *reconciler) setUp(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).For(&site.Site{}).Owns(&appsv1.Deployment{}).Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, q ctrl.Request) (ctrl.Result, error) {
	s := &site.Site{}
	if err := r.Get(ctx, q.NamespacedName, s); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if s.DeletionTimestamp != nil {
		return ctrl.Result{}, r.leave(ctx, s)
	}
	if controllerutil.AddFinalizer(s, finalizer) {
		if err := r.Update(ctx, s); err != nil {
			return ctrl.Result{}, fmt.Errorf("set the finalizer: %w", err)
		}
	}
	if err := r.note(ctx, s, true); err != nil {
		return ctrl.Result{}, err
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, d, func() error {
		fill(d, s)
		return controllerutil.SetControllerReference(s, d, r.Scheme())
	}); err != nil {
		return ctrl.Result{}, fmt.Errorf("write the deployment: %w", err)
	}
	status := site.Status{ObservedGeneration: s.Generation, Available: d.Status.AvailableReplicas}
	if s.Status == status {
		return ctrl.Result{}, nil
	}
	s.Status = status
	if err := r.Status().Update(ctx, s); err != nil {
		return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
	}
	return ctrl.Result{}, nil
}

// leave does what a Site's finalizer is for.
func (r *reconciler) leave(ctx context.Context, s *site.Site) error {
	if !controllerutil.ContainsFinalizer(s, finalizer) {
		return nil
	}
	if err := r.note(ctx, s, false); err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(s, finalizer)
	return client.IgnoreNotFound(r.Update(ctx, s))
}

// note keeps the register: a key for each Site that is there.
func (r *reconciler) note(ctx context.Context, s *site.Site, there bool) error {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: register}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, m, func() error {
		if m.Data == nil {
			m.Data = map[string]string{}
		}
		key := s.Namespace + "." + s.Name
		if there {
			m.Data[key] = string(s.UID)
		} else {
			delete(m.Data, key)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the register: %w", err)
	}
	return nil
}

// fill sets what a Site says of its Deployment, and leaves what the API defaulted.
func fill(d *appsv1.Deployment, s *site.Site) {
	labels := map[string]string{"site": s.Name}
	d.Spec.Replicas = &s.Spec.Replicas
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	if len(d.Spec.Template.Spec.Containers) == 0 {
		d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "site"}}
	}
	c := &d.Spec.Template.Spec.Containers[0]
	c.Image, c.Args = "sublet.dev/quickstart:1", []string{"counter"}
	c.Env = []corev1.EnvVar{{Name: "GREETING", Value: s.Spec.Greeting}}
	if c.ReadinessProbe == nil {
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1}
	}
	get := &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(9090), Scheme: corev1.URISchemeHTTP}
	c.ReadinessProbe.HTTPGet = get
}
