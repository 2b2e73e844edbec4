package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

// pollEvery is how often the host API is asked whether a canary runs yet.
const pollEvery = 200 * time.Millisecond

// canaries makes and removes what an audit needs to try things.
type canaries struct {
	host client.Client
	plan plan
}

// place starts a tenant's two canaries and waits until both listen.
func (c *canaries) place(ctx context.Context, vc v1alpha1.VirtualCluster) (station, error) {
	s := station{tenant: vc}
	if vc.Status.Namespace == "" {
		return s, fmt.Errorf("tenant %s has no host namespace yet", vc.Name)
	}
	pods := map[side]*corev1.Pod{prober: c.plan.pod(vc, prober), peer: c.plan.pod(vc, peer)}
	for _, pod := range pods {
		if err := c.create(ctx, pod); err != nil {
			return s, fmt.Errorf("start the canary %s in tenant %s: %w", pod.Name, vc.Name, err)
		}
	}
	for at, into := range map[side]*canary{prober: &s.prober, peer: &s.peer} {
		pod, err := c.running(ctx, pods[at])
		if err != nil {
			return s, fmt.Errorf("start the canary %s in tenant %s: %w", pods[at].Name, vc.Name, err)
		}
		*into = canary{ref: *podRef(pod), node: pod.Spec.NodeName, ip: pod.Status.PodIP}
	}
	return s, nil
}

// create creates a pod. A namespace without its service account yet is waited
// for: the host's controllers make it a moment after the namespace.
func (c *canaries) create(ctx context.Context, pod *corev1.Pod) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		last = c.host.Create(ctx, pod)
		if apierrors.IsForbidden(last) && missingAccount(last) {
			return false, nil
		}
		return true, last
	})
	return explained(err, last)
}

// missingAccount says whether a pod was refused because the namespace's service
// account is not there yet (upstream's admission plugin ServiceAccount).
func missingAccount(err error) bool { return strings.Contains(err.Error(), "service account") }

// running waits until a pod runs and is ready, and returns it.
func (c *canaries) running(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	now, last := &corev1.Pod{}, errors.New("it was not seen yet")
	err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		if err := c.host.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
			return false, err
		}
		if now.Status.Phase == corev1.PodFailed || now.Status.Phase == corev1.PodSucceeded {
			return false, fmt.Errorf("it ended: %s %s", now.Status.Reason, now.Status.Message)
		}
		last = errors.New(waitingFor(now))
		return now.Status.PodIP != "" && podReady(now), nil
	})
	return now, explained(err, last)
}

// explained adds the last thing that was seen to the end of a wait.
func explained(err, last error) error {
	if err != nil && last != nil && !errors.Is(err, last) {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waitingFor says what keeps a pod from running, as the host API has it.
func waitingFor(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return fmt.Sprintf("its container waits: %s %s", w.Reason, w.Message)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return fmt.Sprintf("%s: %s", c.Reason, c.Message)
		}
	}
	return "it is " + string(p.Status.Phase)
}

// stranger creates the run's own tenant and waits until it is fenced.
func (c *canaries) stranger(ctx context.Context, sandbox string) (v1alpha1.VirtualCluster, error) {
	vc := c.plan.stranger(sandbox)
	if err := c.host.Create(ctx, vc); err != nil {
		return *vc, fmt.Errorf("create the audit's own tenant %s: %w", vc.Name, err)
	}
	last := errors.New("it was not seen yet")
	err := wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		if err := c.host.Get(ctx, client.ObjectKeyFromObject(vc), vc); err != nil {
			return false, err
		}
		ready := true
		for _, kind := range []string{v1alpha1.ConditionFenced, v1alpha1.ConditionReady} {
			ready = ready && meta.IsStatusConditionTrue(vc.Status.Conditions, kind)
		}
		last = fmt.Errorf("it is %q", vc.Status.Phase)
		return ready && vc.Status.Namespace != "", nil
	})
	if err != nil {
		return *vc, fmt.Errorf("wait for the audit's own tenant %s: %w", vc.Name, explained(err, last))
	}
	return *vc, nil
}

// remove deletes everything of the run, and what expired of others, and waits
// until it is gone. Removing nothing is success.
func (c *canaries) remove(ctx context.Context, mine bool) error {
	return wait.PollUntilContextCancel(ctx, pollEvery, true, func(ctx context.Context) (bool, error) {
		left, err := c.left(ctx, mine)
		if err != nil {
			return false, err
		}
		for _, o := range left {
			// Twice is harmless: only a new deletion time would be written.
			if o.GetDeletionTimestamp() == nil {
				if err := c.host.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
					return false, fmt.Errorf("remove the canary %s: %w", o.GetName(), err)
				}
			}
		}
		return len(left) == 0, nil
	})
}

// drop begins the removal of a tenant's canaries, so that many tenants can be
// audited on little memory. [canaries.remove] does the rest.
func (c *canaries) drop(ctx context.Context, vc v1alpha1.VirtualCluster) {
	for _, s := range []side{prober, peer} {
		_ = c.host.Delete(ctx, c.plan.pod(vc, s)) // remove says so when it lasts
	}
}

// left lists what the run made, or with mine false what others left to expire.
func (c *canaries) left(ctx context.Context, mine bool) ([]client.Object, error) {
	var pods corev1.PodList
	var tenants v1alpha1.VirtualClusterList
	labels := client.MatchingLabels{tenant.LabelManagedBy: ManagedByAudit}
	if err := c.host.List(ctx, &pods, labels, client.HasLabels{LabelAudit}); err != nil {
		return nil, fmt.Errorf("list canaries: %w", err)
	}
	if err := c.host.List(ctx, &tenants, labels, client.HasLabels{LabelAudit}); err != nil {
		return nil, fmt.Errorf("list the tenants of audits: %w", err)
	}
	wanted := func(m metav1.ObjectMeta) bool {
		if mine {
			return m.Labels[LabelAudit] == c.plan.run
		}
		return expired(m, time.Now())
	}
	var out []client.Object
	for i := range pods.Items {
		if wanted(pods.Items[i].ObjectMeta) {
			out = append(out, &pods.Items[i])
		}
	}
	for i := range tenants.Items {
		if wanted(tenants.Items[i].ObjectMeta) {
			out = append(out, &tenants.Items[i])
		}
	}
	return out, nil
}
