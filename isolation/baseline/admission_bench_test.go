package baseline_test

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// onHost is upstream's admission plugin as a host's API server runs it, with all that a
// host has of ours, and one tenant's namespace.
func onHost(b *testing.B, ns *corev1.Namespace) *validating.Plugin {
	b.Helper()
	objects := []runtime.Object{ns}
	for _, o := range baseline.Host() {
		if p, ok := o.(*admissionv1.ValidatingAdmissionPolicy); ok { // what the API server sets
			if p.Spec.ParamKind != nil {
				continue // its kind is not there, and it is not about what a tenant has
			}
			p.Spec.MatchConstraints.ObjectSelector, p.Spec.MatchConstraints.MatchPolicy = &metav1.LabelSelector{}, ptr.To(admissionv1.Equivalent)
		}
		objects = append(objects, o)
	}
	klog.SetLogger(logr.Discard())
	ctx, cancel := context.WithCancel(b.Context())
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		b.Fatal(err)
	}
	initializer.New(client, dynamic.NewForConfigOrDie(&rest.Config{}), factory, authorizerfactory.NewAlwaysAllowAuthorizer(), utilfeature.DefaultFeatureGate,
		compatibility.DefaultBuildEffectiveVersion(), ctx.Done(), testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme)).Initialize(plugin)
	if err := plugin.ValidateInitialization(); err != nil {
		b.Fatal(err)
	}
	factory.Start(ctx.Done())
	b.Cleanup(func() { cancel(); factory.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), plugin.WaitForReady) {
		b.Fatal("the policies are not there")
	}
	return plugin
}

// usualPod is what the syncer makes of a plain pod, when the host's API server has added
// its part.
func usualPod(tn tenant.Tenant) *corev1.Pod {
	pod := syncedPod(tn)
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Labels[tenant.HostLabel("tier")] = "front"
	share := corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	seconds := ptr.To[int64](300)
	pod.Spec = corev1.PodSpec{
		RuntimeClassName: ptr.To(tn.Sandbox.RuntimeClass()), AutomountServiceAccountToken: ptr.To(false), ServiceAccountName: "default",
		NodeSelector: map[string]string{tn.Sandbox.NodeLabel(): "true"}, RestartPolicy: corev1.RestartPolicyAlways,
		SecurityContext: &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		DNSPolicy:       corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"10.0.0.10"}, Searches: []string{"default.svc.cluster.local"}},
		Tolerations: []corev1.Toleration{
			{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds},
			{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds},
		},
		Containers: []corev1.Container{{
			Name: "web", Image: "registry.example.org/team/web:1", Resources: corev1.ResourceRequirements{Limits: share, Requests: share},
			Ports: []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env: []corev1.EnvVar{
				{Name: "KUBERNETES_SERVICE_HOST", Value: "10.0.0.1"}, {Name: "KUBERNETES_SERVICE_PORT", Value: "443"}, {Name: "KUBERNETES_PORT", Value: "tcp://10.0.0.1:443"},
				{Name: "A", Value: "a"}, {Name: "B", Value: "b"}, {Name: "C", Value: "c"}, {Name: "NAME", ValueFrom: field("metadata.name")}, {Name: "IP", ValueFrom: field("status.podIP")},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		}},
		Volumes: []corev1.Volume{{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "token"}}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace"}}}},
		}}}}},
	}
	if tn.Sandbox == tenant.RuncUserNS {
		pod.Spec.HostUsers = ptr.To(false)
	}
	return pod
}

// BenchmarkAdmissionOfPod tells what the host's API server spends on our policies for each
// pod that a syncer makes, but for the conversion from its internal form.
func BenchmarkAdmissionOfPod(b *testing.B) {
	tn := acme(tenant.GVisor)
	plan := v1alpha1.PlanSpec{StorageClasses: []string{"fast"}}
	plugin := onHost(b, baseline.Tenant(tn, "cell-0", plan)[0].(*corev1.Namespace))
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	judge := func(pod *corev1.Pod) error {
		attr := admission.NewAttributesRecord(pod, nil, pod.GroupVersionKind(), pod.Namespace, pod.Name, corev1.SchemeGroupVersion.WithResource("pods"), "",
			admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: tenant.WriteUser(tn.HostNamespace), Groups: []string{user.AllAuthenticated}})
		return plugin.Validate(b.Context(), attr, interfaces)
	}
	pod := usualPod(tn)
	bad := pod.DeepCopy()
	bad.Spec.HostPID = true
	if err := judge(bad); err == nil {
		b.Fatal("nothing is refused: the policy is not there")
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := judge(pod); err != nil {
			b.Fatal(err)
		}
	}
}
