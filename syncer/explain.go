package syncer

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/patrol"
	"sublet.dev/syncer/translate"
)

// ErrNotFound says that there is nothing to explain.
var ErrNotFound = errors.New("not found")

// Explanation is what a syncer knows of an object that goes to the host. It is for the
// provider: it names objects of the host.
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
	// Line is the pod's place among those of its tenant that wait until the host's
	// scheduler has placed others of them, from 1 on; 0: it does not wait for that.
	Line int `json:"line,omitempty"`
	// Fields are what becomes of each field of the tenant's object.
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
	// Kind is the resource (services), or RESOURCE.GROUP of a plan's rule, and empty for
	// a pod; TenantObject and HostObject are its objects. Of Secrets no value is told.
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
	e := s.explanation(name, string(host.HostName(name)), []string{kindPod, kindPodStatus, kindPodEvents})
	e.Pairing, e.TenantPod, e.HostPod = pairing(host, tenantPod, hostPod), bare(tenantPod), bare(hostPod)
	e.Line = s.crowd.place(name)
	if tenantPod != nil {
		e.Fields = s.t.Fates(tenantPod)
		if why, ok := s.held.get(tenantPod); ok {
			e.Held = why.reason + ": " + why.message
		}
	}
	return e, nil
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
