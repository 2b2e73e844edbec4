package kube

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"

	"sublet.dev/tenant-apiserver/plan"
)

// admissionName is the plugin's name in metrics and errors.
const admissionName = "SubletTenant"

// tenantAdmission refuses what a tenant must not do with pods: create pods the
// provider does not run, and bind pods to nodes, which is the provider's. What else the
// tenant's companion refuses it refuses, and it warns of what nobody carries out.
type tenantAdmission struct {
	*admission.Handler
	validatePod func(*corev1.Pod) error
	judgeObject func(runtime.Object) ([]string, error) // nil: nothing is judged
	terms       func() *plan.Terms                     // nil: no plan
	api         kubernetes.Interface
}

// SetExternalKubeClientSet implements upstream's WantsExternalKubeClientSet: the tenant's
// own API.
func (t *tenantAdmission) SetExternalKubeClientSet(api kubernetes.Interface) { t.api = api }

// ValidateInitialization implements admission.InitializationValidator.
func (t *tenantAdmission) ValidateInitialization() error {
	if t.api == nil {
		return errors.New("the client of the tenant's API is missing")
	}
	return nil
}

var _ initializer.WantsExternalKubeClientSet = (*tenantAdmission)(nil)

var _ admission.ValidationInterface = (*tenantAdmission)(nil)

func registerTenantAdmission(o *genericoptions.AdmissionOptions, validatePod func(*corev1.Pod) error, judge func(runtime.Object) ([]string, error), terms func() *plan.Terms) {
	o.Plugins.Register(admissionName, func(io.Reader) (admission.Interface, error) {
		return &tenantAdmission{
			Handler:     admission.NewHandler(admission.Create, admission.Update),
			validatePod: validatePod,
			judgeObject: judge,
			terms:       terms,
		}, nil
	})
	o.RecommendedPluginOrder = append([]string{admissionName}, o.RecommendedPluginOrder...)
}

// Validate implements admission.ValidationInterface.
func (t *tenantAdmission) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	t.warn(ctx, a)
	switch a.GetResource().GroupResource() {
	case core.Resource("bindings"):
		return t.validateBinding(ctx, a)
	case core.Resource("pods"):
		switch a.GetSubresource() {
		case "binding":
			return t.validateBinding(ctx, a)
		case "", "ephemeralcontainers", "resize":
			return t.validate(ctx, a)
		}
		return nil
	}
	return t.judge(ctx, a)
}

func (t *tenantAdmission) validateBinding(ctx context.Context, a admission.Attributes) error {
	if fromLoopback(ctx) {
		return nil
	}
	return admission.NewForbidden(a, fmt.Errorf("pods are assigned to nodes by the provider"))
}

func (t *tenantAdmission) validate(ctx context.Context, a admission.Attributes) error {
	pod, ok := a.GetObject().(*core.Pod)
	if !ok || t.validatePod == nil {
		return nil
	}
	old, updated := a.GetOldObject().(*core.Pod)
	updated = updated && old != nil
	if updated && apiequality.Semantic.DeepEqual(old.Spec, pod.Spec) {
		return nil // what was admitted once can always be labelled, finalized and deleted
	}
	versioned := &corev1.Pod{}
	if err := corev1conversion.Convert_core_Pod_To_v1_Pod(pod, versioned, nil); err != nil {
		return admission.NewForbidden(a, fmt.Errorf("the pod cannot be read: %w", err))
	}
	if updated && old.Spec.NodeName == pod.Spec.NodeName {
		versioned.Spec.NodeName = "" // the provider's choice, of which the tenant said nothing
	}
	if err := t.handler(ctx, &versioned.Spec); err != nil {
		return admission.NewForbidden(a, err)
	}
	if err := t.validatePod(versioned); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

// handler puts the handler of a pod's RuntimeClass in the place of its name. That there is
// the class, upstream's own admission has seen to.
func (t *tenantAdmission) handler(ctx context.Context, spec *corev1.PodSpec) error {
	if spec.RuntimeClassName == nil || t.api == nil {
		return nil
	}
	class, err := t.api.NodeV1().RuntimeClasses().Get(ctx, *spec.RuntimeClassName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // an update of a pod whose class is gone
	}
	if err != nil {
		return fmt.Errorf("read the RuntimeClass %q: %w", *spec.RuntimeClassName, err)
	}
	spec.RuntimeClassName = &class.Handler
	return nil
}
