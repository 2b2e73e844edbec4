package server

import (
	"context"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// post makes an object from JSON.
func post(ctx context.Context, k kubernetes.Interface, path, body string) error {
	return posting(k, path, body).Do(ctx).Error()
}

func posting(k kubernetes.Interface, path, body string) *rest.Request {
	return k.Discovery().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body([]byte(body))
}

func mustPost(t *testing.T, k kubernetes.Interface, path, body string) {
	t.Helper()
	if err := post(t.Context(), k, path, body); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// What a tenant writes to bound its own users and pods holds in its API: quotas,
// defaults, Pod Security, policies in CEL.
func TestTenantsOwnPolicies(t *testing.T) {
	k := client(t, w.b.admin(t))
	ns := namespace(t, k)
	in := func(group, resource string) string { return group + "/namespaces/" + ns + "/" + resource }
	maps := in("/api/v1", "configmaps")
	refused := func(t *testing.T, what, path, body, says string) {
		t.Helper()
		var last error
		defer func() {
			if t.Failed() {
				t.Log(what, "was answered with", last)
			}
		}()
		await(t, what, func(ctx context.Context) (bool, error) { // who judges hears of it a moment later
			last = posting(k, path, body).Param("dryRun", "All").Do(ctx).Error()
			return apierrors.IsForbidden(last) && strings.Contains(last.Error(), says), nil
		})
	}
	t.Run("quota", func(t *testing.T) {
		mustPost(t, k, in("/api/v1", "resourcequotas"), `{"metadata":{"name":"q"},"spec":{"hard":{"count/secrets":"1"}}}`)
		mustPost(t, k, in("/api/v1", "configmaps"), `{"metadata":{"name":"free"}}`)
		await(t, "the first", func(ctx context.Context) (bool, error) {
			return post(ctx, k, in("/api/v1", "secrets"), `{"metadata":{"name":"one"}}`) == nil, nil
		})
		refused(t, "the second", in("/api/v1", "secrets"), `{"metadata":{"name":"two"}}`, "exceeded quota: q")
	})
	t.Run("limit range", func(t *testing.T) {
		mustPost(t, k, in("/api/v1", "limitranges"), `{"metadata":{"name":"l"},"spec":{"limits":[{"type":"Container","default":{"memory":"64Mi"},"max":{"memory":"128Mi"}}]}}`)
		refused(t, "too much", in("/api/v1", "pods"), `{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"memory":"1Gi"}}}]}}`, "maximum memory usage per Container is 128Mi")
		made, err := k.CoreV1().Pods(ns).Create(t.Context(), pod("small"), metav1.CreateOptions{})
		if err != nil || made.Spec.Containers[0].Resources.Limits.Memory().String() != "64Mi" {
			t.Errorf("the default: %v, %v", made.Spec.Containers[0].Resources, err)
		}
	})
	t.Run("Pod Security", func(t *testing.T) {
		mustPost(t, k, "/api/v1/namespaces", `{"metadata":{"name":"`+ns+`-strict","labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
		t.Cleanup(func() { _ = k.CoreV1().Namespaces().Delete(context.Background(), ns+"-strict", metav1.DeleteOptions{}) })
		refused(t, "a pod that leaves all open", "/api/v1/namespaces/"+ns+"-strict/pods", `{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i"}]}}`, `violates PodSecurity "restricted:latest"`)
	})
	const match = `"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["configmaps"]}]}`
	const api = "/apis/admissionregistration.k8s.io/v1/"
	policy := func(t *testing.T, kind, plural, spec string) {
		mustPost(t, k, api+plural, `{"metadata":{"name":"`+ns+`"},"spec":{`+match+`,`+spec+`}}`)
		mustPost(t, k, api+kind+"bindings", `{"metadata":{"name":"`+ns+`"},"spec":{"policyName":"`+ns+`","matchResources":{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"`+ns+`"}}}`+map[bool]string{true: `,"validationActions":["Deny"]`}[kind[0] == 'v']+`}}`)
		t.Cleanup(func() {
			_ = k.Discovery().RESTClient().Delete().AbsPath(api+plural, ns).Do(context.Background())
			_ = k.Discovery().RESTClient().Delete().AbsPath(api+kind+"bindings", ns).Do(context.Background())
		})
	}
	t.Run("validating policy", func(t *testing.T) {
		policy(t, "validatingadmissionpolicy", "validatingadmissionpolicies", `"validations":[{"expression":"object.metadata.name != 'bad'","message":"the policy says no","reason":"Forbidden"}]`)
		refused(t, "bad", maps, `{"metadata":{"name":"bad"}}`, "the policy says no")
		mustPost(t, k, maps, `{"metadata":{"name":"good"}}`)
	})
	t.Run("mutating policy", func(t *testing.T) {
		policy(t, "mutatingadmissionpolicy", "mutatingadmissionpolicies", `"reinvocationPolicy":"Never","mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":"Object{metadata: Object.metadata{labels: {'mutated': 'yes'}}}"}}]`)
		await(t, "a label", func(ctx context.Context) (bool, error) {
			made, err := k.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err == nil && made.Labels["mutated"] == "yes", err
		})
	})
}

// A budget keeps pods from being evicted, with 429, as long as it says so.
func TestEvictionMindsBudgets(t *testing.T) {
	k := client(t, w.b.admin(t))
	ns := namespace(t, k)
	if _, err := k.CoreV1().Pods(ns).Create(t.Context(), pod("x"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patchStatus(t, client(t, w.b.server.Loopback()), ns, "x", corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}})
	mustPost(t, k, "/apis/policy/v1/namespaces/"+ns+"/poddisruptionbudgets", `{"metadata":{"name":"x"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"x"}}}}`)
	evict := func(ctx context.Context) error {
		return k.PolicyV1().Evictions(ns).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: ns}})
	}
	await(t, "the budget counts the pod", func(ctx context.Context) (bool, error) {
		b, err := k.PolicyV1().PodDisruptionBudgets(ns).Get(ctx, "x", metav1.GetOptions{})
		return err == nil && b.Status.ExpectedPods == 1 && b.Status.CurrentHealthy == 1, err
	})
	if err := evict(t.Context()); !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("against the budget: %v", err)
	}
	if err := k.PolicyV1().PodDisruptionBudgets(ns).Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pod is evicted", func(ctx context.Context) (bool, error) { return evict(ctx) == nil, nil })
}

// Events end by themselves after an hour, and nothing else does.
func TestEventsEnd(t *testing.T) {
	s := w.b.server
	k := client(t, s.Loopback())
	ns := namespace(t, k)
	mustPost(t, k, "/api/v1/namespaces/"+ns+"/events", `{"metadata":{"name":"x","namespace":"`+ns+`"},"involvedObject":{"kind":"Pod","namespace":"`+ns+`","name":"x"},"reason":"Because"}`)
	mustPost(t, k, "/api/v1/namespaces/"+ns+"/configmaps", `{"metadata":{"name":"x"}}`)
	store := etcdclient.New(s.file)
	t.Cleanup(func() { _ = store.Close() })
	lease := func(resource string) int64 {
		t.Helper()
		r, err := store.KV.Get(t.Context(), "/registry/"+resource+"/"+ns+"/x")
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%s: %v, %v", resource, r, err)
		}
		return r.Kvs[0].Lease
	}
	if id := lease("configmaps"); id != 0 {
		t.Errorf("a ConfigMap has lease %d", id)
	}
	if r, err := store.TimeToLive(t.Context(), clientv3.LeaseID(lease("events"))); err != nil || time.Duration(r.GrantedTTL)*time.Second < 50*time.Minute || r.GrantedTTL > 70*60 {
		t.Errorf("an event's lease: %+v, %v", r, err)
	}
}

// Requests go by priority and fairness, which is the tenant's to arrange: by the flow
// schemas that there are at first, and by its own.
func TestPriorityAndFairness(t *testing.T) {
	admin := w.b.admin(t)
	k := client(t, admin)
	schemaOf := func(t *testing.T, config *rest.Config) string {
		t.Helper()
		r, err := get(t, config, "/api/v1/namespaces")
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		all, err := k.FlowcontrolV1().FlowSchemas().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all.Items {
			if string(s.UID) == r.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) {
				return s.Name
			}
		}
		return ""
	}
	jane := w.b.as(t, "fair-jane")
	for name, c := range map[string]struct {
		as   *rest.Config
		want string
	}{"an administrator": {admin, "exempt"}, "a user": {jane, "global-default"}} {
		await(t, name+" is served by "+c.want, func(context.Context) (bool, error) { return schemaOf(t, c.as) == c.want, nil })
	}
	mustPost(t, k, "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", `{"metadata":{"name":"fair-jane"},"spec":{"matchingPrecedence":900,"priorityLevelConfiguration":{"name":"workload-low"},`+
		`"rules":[{"subjects":[{"kind":"User","user":{"name":"fair-jane"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}]}]}}`)
	t.Cleanup(func() {
		if err := k.FlowcontrolV1().FlowSchemas().Delete(context.Background(), "fair-jane", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	await(t, "the tenant's own schema", func(context.Context) (bool, error) { return schemaOf(t, jane) == "fair-jane", nil })
}
