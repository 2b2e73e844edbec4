package idle

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// Objects is what Judge looks at: everything of these kinds that a tenant has.
type Objects struct {
	Namespaces   corev1.NamespaceList
	Nodes        corev1.NodeList
	Pods         corev1.PodList
	Replicators  corev1.ReplicationControllerList
	Deployments  appsv1.DeploymentList
	ReplicaSets  appsv1.ReplicaSetList
	StatefulSets appsv1.StatefulSetList
	DaemonSets   appsv1.DaemonSetList
	Jobs         batchv1.JobList
	CronJobs     batchv1.CronJobList
	Autoscalers  autoscalingv2.HorizontalPodAutoscalerList
	Budgets      policyv1.PodDisruptionBudgetList
	Requests     certificatesv1.CertificateSigningRequestList
	ServiceCIDRs networkingv1.ServiceCIDRList
}

// Read lists the objects of a tenant through its API, in all namespaces.
func Read(ctx context.Context, api kubernetes.Interface) (*Objects, error) {
	o := &Objects{}
	core, apps, batch := api.CoreV1(), api.AppsV1(), api.BatchV1()
	for _, read := range []func() error{
		into(ctx, &o.Namespaces, core.Namespaces().List),
		into(ctx, &o.Nodes, core.Nodes().List),
		into(ctx, &o.Pods, core.Pods("").List),
		into(ctx, &o.Replicators, core.ReplicationControllers("").List),
		into(ctx, &o.Deployments, apps.Deployments("").List),
		into(ctx, &o.ReplicaSets, apps.ReplicaSets("").List),
		into(ctx, &o.StatefulSets, apps.StatefulSets("").List),
		into(ctx, &o.DaemonSets, apps.DaemonSets("").List),
		into(ctx, &o.Jobs, batch.Jobs("").List),
		into(ctx, &o.CronJobs, batch.CronJobs("").List),
		into(ctx, &o.Autoscalers, api.AutoscalingV2().HorizontalPodAutoscalers("").List),
		into(ctx, &o.Budgets, api.PolicyV1().PodDisruptionBudgets("").List),
		into(ctx, &o.Requests, api.CertificatesV1().CertificateSigningRequests().List),
		into(ctx, &o.ServiceCIDRs, api.NetworkingV1().ServiceCIDRs().List),
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// into lists one kind.
func into[L any, P interface {
	*L
	runtime.Object
}](ctx context.Context, to P, list func(context.Context, metav1.ListOptions) (P, error)) func() error {
	return func() error {
		l, err := list(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list the tenant's objects: %w", err)
		}
		*to = *l
		return nil
	}
}
