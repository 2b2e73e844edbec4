package cell_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// furniture is an object for each controller that could do something as it starts.
var furniture = [][2]string{
	{"/api/v1/namespaces", `{"metadata":{"name":"own"}}`},
	{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"metadata":{"name":"foos.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"foos","kind":"Foo"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`},
	{"/api/v1/namespaces/own/configmaps", `{"metadata":{"name":"x"},"data":{"a":"b"}}`},
	{"/api/v1/namespaces/own/secrets", `{"metadata":{"name":"token","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}`},
	{"/api/v1/namespaces/own/services", `{"metadata":{"name":"x"},"spec":{"selector":{"a":"b"},"ports":[{"port":80}]}}`},
	{"/api/v1/namespaces/own/services", `{"metadata":{"name":"led"},"spec":{"ports":[{"port":80}]}}`},
	{"/api/v1/namespaces/own/endpoints", `{"metadata":{"name":"led"},"subsets":[{"addresses":[{"ip":"192.0.2.9"}],"ports":[{"port":80}]}]}`},
	{"/api/v1/namespaces/own/pods", `{"metadata":{"name":"x","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`},
	{"/api/v1/namespaces/own/persistentvolumeclaims", `{"metadata":{"name":"x"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`},
	{"/api/v1/namespaces/own/resourcequotas", `{"metadata":{"name":"x"},"spec":{"hard":{"pods":"7","count/configmaps":"50"}}}`},
	{"/api/v1/namespaces/own/limitranges", `{"metadata":{"name":"x"},"spec":{"limits":[{"type":"Container","default":{"memory":"64Mi"}}]}}`},
	{"/api/v1/namespaces/own/events", `{"metadata":{"name":"x","namespace":"own"},"involvedObject":{"kind":"Pod","namespace":"own","name":"x"},"reason":"Because","type":"Normal"}`},
	{"/apis/apps/v1/namespaces/own/deployments", `{"metadata":{"name":"x"},"spec":{"replicas":0,"selector":{"matchLabels":{"d":"e"}},"template":{"metadata":{"labels":{"d":"e"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`},
	{"/apis/apps/v1/namespaces/own/statefulsets", `{"metadata":{"name":"x"},"spec":{"replicas":0,"selector":{"matchLabels":{"f":"g"}},"template":{"metadata":{"labels":{"f":"g"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`},
	{"/apis/batch/v1/namespaces/own/jobs", `{"metadata":{"name":"x"},"spec":{"suspend":true,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`},
	{"/apis/batch/v1/namespaces/own/cronjobs", `{"metadata":{"name":"x"},"spec":{"schedule":"0 0 1 1 *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`},
	{"/apis/policy/v1/namespaces/own/poddisruptionbudgets", `{"metadata":{"name":"x"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"a":"b"}}}}`},
	{"/apis/coordination.k8s.io/v1/namespaces/own/leases", `{"metadata":{"name":"x"},"spec":{"holderIdentity":"me","leaseDurationSeconds":15}}`},
	{"/apis/networking.k8s.io/v1/namespaces/own/networkpolicies", `{"metadata":{"name":"x"},"spec":{"podSelector":{}}}`},
	{"/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"x","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[{"apiGroups":["example.com"],"resources":["foos"],"verbs":["get"]}]}`},
	{"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", `{"metadata":{"name":"x"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["endpoints"]}]},"validations":[{"expression":"object.metadata.name != 'y'"}]}}`},
	{"/apis/example.com/v1/namespaces/own/foos", `{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"x"},"spec":{"size":3}}`},
}

// furnish makes the furniture; what it is about may be known a moment later.
func furnish(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	for _, object := range furniture {
		until(t, "made "+object[0], func() error {
			return k.Discovery().RESTClient().Post().AbsPath(object[0]).SetHeader("Content-Type", "application/json").Body([]byte(object[1])).Do(t.Context()).Error()
		})
	}
}

// until waits until there is no error.
func until(t *testing.T, what string, do func() error) {
	t.Helper()
	for last, end := error(nil), time.After(patience); ; {
		if last = do(); last == nil {
			return
		}
		select {
		case <-end:
			t.Fatalf("%s: %v", what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// all is everything that a client can read of an API: each object as it is, and the
// documents about the API itself.
func everything(t *testing.T, k kubernetes.Interface) map[string]string {
	t.Helper()
	_, resources, err := k.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	read := func(path string) []byte {
		data, err := k.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Raw()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return data
	}
	for _, document := range []string{"/api", "/apis", "/openapi/v2", "/openapi/v3", "/version", "/.well-known/openid-configuration", "/openid/v1/jwks"} {
		all[document] = string(read(document))
	}
	for _, group := range resources {
		prefix := "/apis/" + group.GroupVersion
		if group.GroupVersion == "v1" {
			prefix = "/api/v1"
		}
		for _, r := range group.APIResources {
			if !slices.Contains(r.Verbs, "list") || strings.HasPrefix(group.GroupVersion, "metrics.k8s.io/") {
				continue
			}
			var list struct {
				Metadata metav1.ListMeta
				Items    []json.RawMessage
			}
			if err := json.Unmarshal(read(prefix+"/"+r.Name), &list); err != nil {
				t.Fatal(err)
			}
			all[prefix+"/"+r.Name] = "a list of revision " + list.Metadata.ResourceVersion
			for _, item := range list.Items {
				var o struct{ Metadata metav1.ObjectMeta }
				if err := json.Unmarshal(item, &o); err != nil {
					t.Fatal(err)
				}
				all[prefix+"/"+r.Name+" "+o.Metadata.Namespace+"/"+o.Metadata.Name] = string(item)
			}
		}
	}
	return all
}

// same wants nothing to have changed.
func same(t *testing.T, when string, was, is map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] != was[name] {
			t.Errorf("%s: %s was\n%.3000s\nand is\n%.3000s", when, name, was[name], is[name])
		}
	}
	for name := range is {
		if _, ok := was[name]; !ok {
			t.Errorf("%s: there was no %s", when, name)
		}
	}
}

// TestSleepIsNotNoticed: whatever a tenant can read is to the byte and the revision the
// same after it slept, the first time and the second, although its controllers started
// anew.
func TestSleepIsNotNoticed(t *testing.T) {
	t.Parallel()
	var reach apis
	var work atomic.Bool
	work.Store(true)
	_, client, dir := start(t, func(tn tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
		_, err := reach.companion(tn, api, nil)
		return restless{idle: idle{http.NotFoundHandler()}, work: &work}, err
	})
	a := sleeper("uid-a", "a")
	put(t, client, a)
	own := reach.client(t, a.ID)
	furnish(t, own)
	until(t, "nothing is written any more", func() error {
		err := client.Sleep(t.Context(), a.ID, 4*time.Second)
		if err != nil && strings.Contains(err.Error(), "the syncer") {
			return nil
		}
		return errors.Join(err, errors.New("something is"))
	})
	was := everything(t, own)
	if len(was) < 200 || !strings.Contains(was["/apis/example.com/v1/foos own/x"], `"size":3`) || was["/apis/discovery.k8s.io/v1/endpointslices"] == "" {
		t.Fatalf("%d objects and documents: the test shows nothing", len(was))
	}
	work.Store(false)
	for _, when := range []string{"after it slept", "after it slept again"} {
		lull(t, client, a.ID)
		k, leave := visitor(t, dir, a)
		same(t, when, was, everything(t, k))
		leave()
	}
	// A change would be seen.
	k, leave := visitor(t, dir, a)
	defer leave()
	if err := k.CoreV1().ConfigMaps("own").Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if now := everything(t, k); now["/api/v1/configmaps own/x"] != "" || now["/api/v1/configmaps"] == was["/api/v1/configmaps"] {
		t.Error("a change does not show")
	}
}
