package syncer

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// chaos is what a tenant has while everything goes wrong.
type chaos struct {
	*testing.T
	ns     string
	random *rand.Rand
	pods   map[string]types.UID
	maps   map[string]types.UID
	byHand int // what was edited or deleted by hand
}

// TestChaos: the host's API is away for a while, writes to it fail, some of them after
// they were carried out, the syncer ends at random moments, and host objects are edited
// and deleted by hand. In the end both sides agree, and the tenant has what it had.
func TestChaos(t *testing.T) {
	c := &chaos{T: t, ns: namespace(t), random: rand.New(rand.NewPCG(11, 13)), pods: map[string]types.UID{}, maps: map[string]types.UID{}}
	t.Cleanup(func() { w.faults.set(false, everyday) })
	for round := range 4 {
		for i := range 6 {
			c.addPod(fmt.Sprintf("pod-%d-%d", round, i))
			if c.random.IntN(3) == 0 {
				w.restart()
			}
			c.meddle()
		}
		if round%2 == 1 {
			c.outage(round)
		}
	}
	c.agree()
	if w.faults.ever() == 0 || c.byHand == 0 {
		t.Errorf("%d writes failed and %d objects were touched by hand: the test shows nothing", w.faults.ever(), c.byHand)
	}
	w.faults.set(false, 0)
	c.agree()
	c.end()
}

// addPod adds a pod with a ConfigMap that it refers to.
func (c *chaos) addPod(name string) {
	c.Helper()
	m, err := w.tenant.CoreV1().ConfigMaps(c.ns).Create(c.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"who": name},
	}, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	pod := simplePod(c.ns, name)
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
	c.pods[name], c.maps[name] = create(c.T, pod).UID, m.UID
}

// meddle edits or deletes a host object by hand. Before the first outage it does so only
// if the object is there already, so that the syncer is ended in the midst of its work.
func (c *chaos) meddle() {
	c.Helper()
	for name := range c.pods {
		host := hostName(c.ns, name)
		maps, pods := w.host.CoreV1().ConfigMaps(acme.HostNamespace), w.host.CoreV1().Pods(acme.HostNamespace)
		if len(c.pods) > 12 {
			wait(c.T, "host pod", func() (bool, any) {
				w.syncer().Patrol(c.Context()) // its ConfigMap may have lost its marks
				_, err := pods.Get(c.Context(), host, metav1.GetOptions{})
				return err == nil, err
			})
		}
		var err error
		switch c.random.IntN(4) {
		case 0:
			err = maps.Delete(c.Context(), host, metav1.DeleteOptions{})
		case 1:
			_, err = maps.Patch(c.Context(), host, types.MergePatchType, []byte(`{"data":{"who":"somebody","more":"x"}}`), metav1.PatchOptions{})
		case 2:
			_, err = pods.Patch(c.Context(), host, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+tenant.HostLabel("app")+`":"other"}}}`), metav1.PatchOptions{})
		default:
			_, err = maps.Patch(c.Context(), host, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+tenant.LabelManagedBy+`":null}}}`), metav1.PatchOptions{})
		}
		if err == nil { // otherwise it is not there yet
			c.byHand++
		}
		return
	}
}

// outage takes the host's API away for a minute of the syncer's clock, with work
// waiting: until requests have failed, and again once all that the syncer had put off to
// within a minute is due. By the clock alone nothing need have been tried meanwhile.
func (c *chaos) outage(round int) {
	c.Helper()
	w.faults.set(true, 0)
	c.addPod(fmt.Sprintf("meanwhile-%d", round))
	noticed := func(what string, n int) {
		c.Helper()
		wait(c.T, what, func() (bool, any) { return w.faults.count() > n, w.faults.count() })
	}
	noticed("notice of the outage", 20)
	w.clock.forward(time.Minute)
	noticed("notice that it lasts", w.faults.count()+5)
	w.faults.set(false, everyday)
}

// agree waits until both sides agree, with the patrol's help.
func (c *chaos) agree() {
	c.Helper()
	wait(c.T, "agreement", func() (bool, any) {
		w.syncer().Patrol(c.Context())
		for name, uid := range c.pods {
			if why := c.differs(name, uid); why != "" {
				return false, why
			}
		}
		return c.nothingElse()
	})
}

// differs says what of a pod and its ConfigMap is not as it must be.
func (c *chaos) differs(name string, uid types.UID) string {
	p, err := tenantPod(c.T, c.ns, name)
	if err != nil || p.UID != uid || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil {
		c.Fatalf("the tenant's pod %s: %v, %+v", name, err, p)
	}
	m, err := w.tenant.CoreV1().ConfigMaps(c.ns).Get(c.Context(), name, metav1.GetOptions{})
	if err != nil || m.UID != c.maps[name] || m.Data["who"] != name {
		c.Fatalf("the tenant's ConfigMap %s: %v, %+v", name, err, m)
	}
	host := hostName(c.ns, name)
	hostPod, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(c.Context(), host, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if hostPod.Annotations[tenant.AnnotationUID] != string(uid) || hostPod.Labels[tenant.HostLabel("app")] != name || hostPod.DeletionTimestamp != nil {
		return fmt.Sprintf("host pod %+v", hostPod.ObjectMeta)
	}
	hostMap, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(c.Context(), host, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if len(hostMap.Data) != 1 || hostMap.Data["who"] != name || hostMap.Labels[tenant.LabelManagedBy] != tenant.ManagedBySyncer {
		return fmt.Sprintf("host ConfigMap %+v", hostMap)
	}
	if hostPod.Spec.NodeName != "" && p.Spec.NodeName == "" {
		return "not bound in the tenant: " + name
	}
	return ""
}

// nothingElse says whether the host has no pod that the tenant has not.
func (c *chaos) nothingElse() (bool, any) {
	list, err := w.host.CoreV1().Pods(acme.HostNamespace).List(c.Context(), metav1.ListOptions{LabelSelector: tenant.LabelNamespace + "=" + tenant.NamespaceValue(c.ns)})
	return err == nil && len(list.Items) == len(c.pods), fmt.Sprintf("%v, %d host pods of %d", err, len(list.Items), len(c.pods))
}

// end deletes the pods, and sees that nothing of them stays on the host.
func (c *chaos) end() {
	c.Helper()
	for name := range c.pods {
		p, err := tenantPod(c.T, c.ns, name)
		if err != nil {
			c.Fatal(err)
		}
		hostPod, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(c.Context(), hostName(c.ns, name), metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		dropPod(c.T, p, hostPod)
	}
	wait(c.T, "empty host", func() (bool, any) {
		list, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).List(c.Context(), metav1.ListOptions{LabelSelector: tenant.LabelNamespace + "=" + tenant.NamespaceValue(c.ns)})
		return err == nil && len(list.Items) <= 1, list // the namespace's root certificate may stay a while
	})
}
