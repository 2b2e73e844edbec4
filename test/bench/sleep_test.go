package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/test/machine"
)

// value prints a figure for whoever reads the output by line.
func value(name string, v float64, unit string) { fmt.Printf("value %s %.4g %s\n", name, v, unit) }

// guest is a client of a tenant's API; leave ends its connection.
func guest(b *testing.B, file string) (api kubernetes.Interface, leave func()) {
	b.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		b.Fatal(err)
	}
	c.QPS = -1 // who tries again does so at once
	h, err := rest.HTTPClientFor(c)
	if err != nil {
		b.Fatal(err)
	}
	k, err := kubernetes.NewForConfigAndClient(c, h)
	if err != nil {
		b.Fatal(err)
	}
	return k, func() { utilnet.CloseIdleConnectionsFor(h.Transport) }
}

// BenchmarkWake measures, through the front door, from the connection to a tenant that
// sleeps to the first answer.
func BenchmarkWake(b *testing.B) {
	machine.Running(b)
	machine.Sublet(b, "create", "waker", "--wait")
	defer machine.Sublet(b, "delete", "waker", "--wait")
	file := filepath.Join(b.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(machine.Sublet(b, "kubeconfig", "waker")), 0o600); err != nil {
		b.Fatal(err)
	}
	const rounds = 30
	var took []float64
	for b.Loop() {
		for range rounds {
			machine.Sublet(b, "sleep", "waker")
			k, leave := guest(b, file)
			start := time.Now()
			if _, err := k.CoreV1().Namespaces().Get(context.Background(), "default", metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start).Seconds()*1000)
			leave()
		}
	}
	slices.Sort(took)
	value("wake/p50", took[len(took)/2], "ms")
	value("wake/p99", took[len(took)*99/100], "ms")
	b.ReportMetric(took[len(took)/2], "ms/wake-p50")
}

// BenchmarkHibernated measures what tenants that sleep cost their cell: its anonymous
// memory with so many of them, less that without.
func BenchmarkHibernated(b *testing.B) {
	machine.Running(b)
	const n = 20
	for b.Loop() {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("sleeper-%d", i))
		}
		for _, name := range names {
			machine.Sublet(b, "create", name, "--wait")
		}
		for _, name := range names {
			machine.Sublet(b, "sleep", name)
		}
		// Started again, the cell hosts them without having run them.
		cell := freshCell(b)
		machine.Eventually(b, "they sleep", func() error {
			if out := machine.Sublet(b, "list"); strings.Count(out, "Asleep") < n {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		with := settled(b, cell)
		for _, name := range names {
			machine.Sublet(b, "delete", name, "--wait")
		}
		without := settled(b, freshCell(b))
		value("hibernated/tenant", (with-without)/n*1024, "KiB")
		b.ReportMetric((with-without)/n*1024, "KiB/hibernated")
	}
}
