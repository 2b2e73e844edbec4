package renewal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/test/machine"
)

func TestMain(m *testing.M) {
	machine.Flags = []string{"--renew-cells=2s"}
	os.Exit(machine.Main(m))
}

// names are the tenants.
var names = []string{"a", "b"}

// patience only ends a test that would wait for ever.
const patience = 5 * time.Minute

// visit is a client of a tenant, through the front door, that hangs up afterwards.
func visit(ctx context.Context, kubeconfig string, what func(context.Context, kubernetes.Interface) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(kubeconfig))
	if err != nil {
		return err
	}
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer utilnet.CloseIdleConnectionsFor(h.Transport)
	k, err := kubernetes.NewForConfigAndClient(config, h)
	if err != nil {
		return err
	}
	return what(ctx, k)
}

// marked wants a tenant to have what it was given.
func marked(ctx context.Context, name, kubeconfig string) error {
	return visit(ctx, kubeconfig, func(ctx context.Context, k kubernetes.Interface) error {
		m, err := k.CoreV1().ConfigMaps("default").Get(ctx, "mark", metav1.GetOptions{})
		if err == nil && m.Data["tenant"] != name {
			err = fmt.Errorf("%s is answered for by %s", name, m.Data["tenant"])
		}
		return err
	})
}

// create makes tenants, unless they are there, and returns their kubeconfigs.
func create(t *testing.T, names ...string) map[string]string {
	t.Helper()
	machine.Running(t)
	kubeconfigs := map[string]string{}
	for _, name := range names {
		if !strings.Contains(machine.Sublet(t, "list"), name+" ") {
			machine.Sublet(t, "create", name, "--wait")
		}
		kubeconfigs[name] = machine.Sublet(t, "kubeconfig", name)
		err := visit(t.Context(), kubeconfigs[name], func(ctx context.Context, k kubernetes.Interface) error {
			mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mark"}, Data: map[string]string{"tenant": name}}
			_, err := k.CoreV1().ConfigMaps("default").Create(ctx, mark, metav1.CreateOptions{})
			return err
		})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	return kubeconfigs
}

// lull puts all tenants to sleep and returns the cell's process then, and what the host
// has of them.
func lull(t *testing.T) (pid int, statuses string) {
	t.Helper()
	var group sync.WaitGroup
	for _, name := range names {
		group.Go(func() {
			if r := machine.Try(t, "sleep", name, "--timeout=5m"); r.Code != 0 {
				t.Errorf("sublet sleep %s: %v", name, r)
			}
		})
	}
	group.Wait()
	machine.Eventually(t, "there is a cell", func() (err error) {
		pid, err = machine.ReadPID(machine.CellPID)
		return err
	})
	return pid, asleep(t)
}

// asleep waits until the host knows that the tenants sleep, and returns what it has.
func asleep(t *testing.T) (now string) {
	t.Helper()
	machine.Eventually(t, "all sleep", func() error {
		now = machine.Host(t, "get", "virtualclusters", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion} {.status.phase}{"\n"}{end}`)
		if strings.Count(now, "Asleep") != len(names) {
			return errors.New(now)
		}
		return nil
	})
	return now
}

// ended waits until a process is gone.
func ended(ctx context.Context, pid int) error {
	return wait.PollUntilContextTimeout(ctx, time.Millisecond, patience, true, func(context.Context) (bool, error) {
		now, err := machine.ReadPID(machine.CellPID)
		return err != nil || now != pid, nil
	})
}

// renewed waits until another process is the cell.
func renewed(t *testing.T, before int) {
	t.Helper()
	machine.Eventually(t, "the cell is another process", func() error {
		now, err := machine.ReadPID(machine.CellPID)
		if err == nil && now == before {
			err = fmt.Errorf("it is %d", now)
		}
		return err
	})
}

// files returns how many files the server has open.
func files(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", machine.PidOf(t, machine.ServerPID)))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// TestRenewal: the cell's process is replaced while its tenants sleep. Nobody can tell
// but by the process: what the host says of them stays, whoever connects meanwhile is
// answered, and nothing is left.
func TestRenewal(t *testing.T) {
	kubeconfigs := create(t, names...)
	pid, before := lull(t)
	renewed(t, pid)
	had := files(t)
	machine.Sublet(t, "sleep", "a") // the new process knows it
	if now := asleep(t); now != before {
		t.Errorf("the host had\n%s\nand has\n%s", before, now)
	}
	for round := range 2 {
		for _, name := range names { // a cell in which nobody has run is not replaced
			if err := marked(t.Context(), name, kubeconfigs[name]); err != nil {
				t.Fatal(err)
			}
		}
		old, _ := lull(t)
		if round%2 == 0 { // there is no process, or one that does not know its tenants yet
			if err := ended(t.Context(), old); err != nil {
				t.Fatal(err)
			}
		}
		name := names[round%len(names)]
		if err := marked(t.Context(), name, kubeconfigs[name]); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if now := machine.PidOf(t, machine.CellPID); now != old {
			if err := syscall.Kill(old, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the process before is still there: %v", err)
			}
		}
	}
	machine.Eventually(t, "the server's files are closed", func() error {
		if now := files(t); now > had+4 {
			return fmt.Errorf("it had %d, and has %d", had, now)
		}
		return nil
	})
}

// TestCronJob: what is due is done at its time, whichever process does it.
func TestCronJob(t *testing.T) {
	if os.Getenv("SUBLET_RENEWAL_CRONJOB") == "" {
		t.Skip("only `make scale` runs this, with SUBLET_RENEWAL_CRONJOB: it takes two minutes")
	}
	kubeconfigs := create(t, names...)
	due := time.Now().UTC().Truncate(time.Minute).Add(2 * time.Minute)
	zone := "Etc/UTC"
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: fmt.Sprintf("%d * * * *", due.Minute()), TimeZone: &zone}}
	c.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	err := visit(t.Context(), kubeconfigs["a"], func(ctx context.Context, k kubernetes.Interface) error {
		_, err := k.BatchV1().CronJobs("default").Create(ctx, c, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := lull(t)
	renewed(t, pid)
	asleep(t)
	machine.Eventually(t, "the tenant is awake", func() error {
		if now := machine.Sublet(t, "list"); strings.Count(now, "Asleep") == len(names) {
			return errors.New(now)
		}
		return nil
	})
	err = visit(t.Context(), kubeconfigs["a"], func(ctx context.Context, k kubernetes.Interface) error {
		jobs, err := k.BatchV1().Jobs("default").Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		defer jobs.Stop()
		j, ok := (<-jobs.ResultChan()).Object.(*batchv1.Job)
		if !ok || j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != due.Format(time.RFC3339) {
			return fmt.Errorf("due at %s, and then %v", due, j)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDeath: the cell's process is killed. All its tenants answer again, with what they
// have, those that sleep as well.
func TestDeath(t *testing.T) {
	all := append([]string{"c"}, names...)
	kubeconfigs := create(t, all...)
	t.Cleanup(func() { machine.Sublet(t, "delete", "c", "--wait") })
	if r := machine.Try(t, "sleep", "a", "--timeout=2m"); r.Code != 0 {
		t.Fatalf("sublet sleep a: %v", r)
	}
	for _, name := range []string{"b", "c"} { // they run
		if err := marked(t.Context(), name, kubeconfigs[name]); err != nil {
			t.Fatal(err)
		}
	}
	old := machine.PidOf(t, machine.CellPID)
	machine.Kill(t, machine.CellPID)
	begun := time.Now()
	var group sync.WaitGroup
	for _, name := range all {
		group.Go(func() {
			err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
				return marked(ctx, name, kubeconfigs[name]) == nil, nil
			})
			if err != nil {
				t.Errorf("%s does not answer: %v", name, err)
				return
			}
			t.Logf("%s answered again %v after the cell had died", name, time.Since(begun))
		})
	}
	group.Wait()
	if now := machine.PidOf(t, machine.CellPID); now == old {
		t.Errorf("the cell is process %d, as it was: nobody was killed", now)
	}
}
