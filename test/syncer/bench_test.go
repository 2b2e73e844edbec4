package syncer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// BenchmarkPodReachesTheHost measures from the answer to a tenant's creation of a
// pod to the event of its host pod, one pod at a time, with its tokens and its root
// certificate on the way.
func BenchmarkPodReachesTheHost(b *testing.B) {
	w.faults.set(false, 0)
	defer w.faults.set(false, everyday)
	ns, err := w.tenant.CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	accounts, err := w.tenant.CoreV1().ServiceAccounts(ns.Name).Watch(b.Context(), metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	<-accounts.ResultChan()
	accounts.Stop()
	hostPods, err := w.host.CoreV1().Pods(acme.HostNamespace).Watch(b.Context(), metav1.ListOptions{
		LabelSelector: tenant.LabelNamespace + "=" + tenant.NamespaceValue(ns.Name),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer hostPods.Stop()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("pod-%d", i)
		if _, err := w.tenant.CoreV1().Pods(ns.Name).Create(b.Context(), simplePod(ns.Name, name), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		answered := time.Now()
		for e := range hostPods.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Name == hostName(ns.Name, name) {
				break
			}
		}
		took = append(took, time.Since(answered))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
}
