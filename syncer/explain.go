package syncer

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/patrol"
	"sublet.dev/syncer/translate"
)

// ErrNotFound says that there is nothing to explain.
var ErrNotFound = errors.New("not found")

// Explanation is what a syncer knows of a pod, or of an object of a plan's rule. It is
// for the provider: it names objects of the host.
type Explanation struct {
	// Namespace and Name are the tenant's, HostNamespace and HostName the host's.
	Namespace     string `json:"namespace"`
	Name          string `json:"name"`
	HostNamespace string `json:"hostNamespace"`
	HostName      string `json:"hostName"`
	// Pairing says in a sentence how the two objects belong together, or which is
	// missing.
	Pairing string `json:"pairing"`
	// Held is why the pod is not on the host, if that is known.
	Held string `json:"held,omitempty"`
	// Fields are what becomes of each field of the tenant's pod.
	Fields []translate.Fate `json:"fields,omitempty"`
	// Passes are what is under way, by pass.
	Passes []PassState `json:"passes"`
	// Queued, Failing and WaitingWrites are those of the whole tenant.
	Queued        int          `json:"queued"`
	Failing       int          `json:"failing"`
	WaitingWrites int          `json:"waitingWrites"`
	Patrol        patrol.Stats `json:"patrol"`
	// TenantPod and HostPod are the objects, as the APIs have them now.
	TenantPod *corev1.Pod `json:"tenantPod,omitempty"`
	HostPod   *corev1.Pod `json:"hostPod,omitempty"`
	// Kind is RESOURCE.GROUP of an object of a plan's rule, and empty for a pod;
	// TenantObject and HostObject are its objects.
	Kind         string         `json:"kind,omitempty"`
	TenantObject map[string]any `json:"tenantObject,omitempty"`
	HostObject   map[string]any `json:"hostObject,omitempty"`
}

// PassState is what is under way of a pod in a pass.
type PassState struct {
	Pass string `json:"pass"`
	engine.State
}

// ExplainPod tells everything about the tenant's pod of that name. It is ErrNotFound
// when there is none on either side.
func (s *Syncer) ExplainPod(ctx context.Context, name tenant.Name) (*Explanation, error) {
	if !cache.WaitForCacheSync(ctx.Done(), s.caches.tenant.pods.HasSynced, s.caches.host.pods.HasSynced) {
		return nil, fmt.Errorf("explain %s: %w", name, context.Cause(ctx))
	}
	tenantPod, err := s.tenantAPI.CoreV1().Pods(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		tenantPod, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tenant's pod %s: %w", name, err)
	}
	host := s.hostPods()
	hostPod, onHost, err := host.Live(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the host's pod of %s: %w", name, err)
	}
	if !onHost {
		hostPod = nil
	}
	if tenantPod == nil && hostPod == nil {
		return nil, fmt.Errorf("pod %s: %w", name, ErrNotFound)
	}
	e := &Explanation{
		Namespace: name.Namespace, Name: name.Name, HostNamespace: s.config.Tenant.HostNamespace, HostName: string(host.HostName(name)),
		Pairing: pairing(host, tenantPod, hostPod), TenantPod: bare(tenantPod), HostPod: bare(hostPod),
		WaitingWrites: s.config.Host.budget.Waiting(s.config.Tenant.ID), Patrol: s.patrol.Stats(),
	}
	e.Queued, e.Failing = s.engine.Backlog()
	for _, kind := range []string{kindPod, kindPodStatus, kindPodEvents} {
		e.Passes = append(e.Passes, PassState{kind, s.engine.State(engine.Key{Kind: kind, Name: name})})
	}
	if tenantPod != nil {
		e.Fields = translate.Fates(tenantPod, policy.LevelFor(s.config.Tenant.Sandbox))
		if why, ok := s.held.get(tenantPod); ok {
			e.Held = why.reason + ": " + why.message
		}
	}
	return e, nil
}

// ExplainHostPod is ExplainPod for the pod that a host pod of the tenant was made for.
func (s *Syncer) ExplainHostPod(ctx context.Context, hostName string) (*Explanation, error) {
	hostPod, err := s.hostRead.CoreV1().Pods(s.config.Tenant.HostNamespace).Get(ctx, hostName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("host pod %s: %w", hostName, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's pod %s: %w", hostName, err)
	}
	owner, verdict := patrol.Judge(s.config.Tenant.ID, hostPod)
	if verdict != patrol.Whole && verdict != patrol.Damaged {
		return nil, fmt.Errorf("host pod %s does not say which pod of the tenant's it is for: %w", hostName, ErrNotFound)
	}
	return s.ExplainPod(ctx, owner.Name)
}

func pairing(host engine.Host[*corev1.Pod], tenantPod, hostPod *corev1.Pod) string {
	if hostPod == nil {
		return "the pod is not on the host"
	}
	owner, err := host.Owner(hostPod)
	switch {
	case err != nil:
		return "the object on the host is not known as the pod's, and left alone: " + err.Error()
	case tenantPod == nil:
		return "the host pod was made for a pod that is gone: it ends"
	case owner != tenantPod.UID:
		return "the host pod was made for an older pod of that name: it ends first"
	default:
		return "the host pod was made for this very pod (UID " + string(owner) + ")"
	}
}

// bare is a copy without what the API keeps for itself.
func bare(pod *corev1.Pod) *corev1.Pod {
	if pod == nil {
		return nil
	}
	pod = pod.DeepCopy()
	pod.ManagedFields = nil
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return pod
}
