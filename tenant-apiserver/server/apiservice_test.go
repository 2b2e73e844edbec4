package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistration "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/utils/ptr"
)

// wardle is an API server with one group, as small as the aggregator accepts. It
// answers requests for its resource with who it takes the client for.
func wardle() http.Handler {
	mux := http.NewServeMux()
	reply := func(path string, object any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(object)
		})
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: "wardle.example.com/v1", Version: "v1"}
	reply("/apis", metav1.APIGroupList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
		Groups:   []metav1.APIGroup{{Name: "wardle.example.com", Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}},
	})
	reply("/apis/wardle.example.com/v1", metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "wardle.example.com/v1",
		APIResources: []metav1.APIResource{{Name: "flunders", Kind: "Flunder", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}}},
	})
	reply("/openapi/v3", map[string]any{"paths": map[string]any{
		"apis/wardle.example.com/v1": map[string]any{"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=1"},
	}})
	reply("/openapi/v3/apis/wardle.example.com/v1", map[string]any{"openapi": "3.0.0", "info": map[string]any{"title": "wardle"}})
	get := map[string]any{"get": map[string]any{"operationId": "whoami", "responses": map[string]any{"200": map[string]any{"description": "wardle's"}}}}
	reply("/openapi/v2", map[string]any{"swagger": "2.0", "info": map[string]any{"title": "wardle", "version": "1"},
		"paths":       map[string]any{"/apis/wardle.example.com/v1/whoami": get, "/api/v1/pods": get, "/apis/foreign.example.com/v1/x": get},
		"definitions": map[string]any{},
	})
	mux.HandleFunc("GET /apis/wardle.example.com/v1/whoami", func(w http.ResponseWriter, req *http.Request) {
		by := "nobody"
		if len(req.TLS.PeerCertificates) > 0 {
			by = string(req.TLS.PeerCertificates[0].Raw)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"user": req.Header.Get("X-Remote-User"), "groups": req.Header.Values("X-Remote-Group"), "by": []byte(by),
			"authorization": req.Header.Get("Authorization"),
		})
	})
	return mux
}

func (o *outside) apiService(t *testing.T) {
	t.Helper()
	service := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.wardle.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "wardle.example.com", Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 10, CABundle: o.own.ca,
			Service: &apiregistrationv1.ServiceReference{Namespace: o.ns, Name: "app", Port: ptr.To[int32](443)},
		},
	}
	if _, err := o.aggregator(t).ApiregistrationV1().APIServices().Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (o *outside) aggregator(t *testing.T) apiregistration.Interface {
	t.Helper()
	c, err := apiregistration.NewForConfig(o.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitAvailable waits until the condition Available is status and its message
// contains text.
func (o *outside) awaitAvailable(t *testing.T, status apiregistrationv1.ConditionStatus, text string) {
	t.Helper()
	c := o.aggregator(t)
	last := ""
	defer func() {
		if t.Failed() {
			t.Log("the last condition:", last)
		}
	}()
	await(t, "Available "+string(status), func(ctx context.Context) (bool, error) {
		s, err := c.ApiregistrationV1().APIServices().Get(ctx, "v1.wardle.example.com", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, cond := range s.Status.Conditions {
			last = fmt.Sprintf("%+v", cond)
			if cond.Type == apiregistrationv1.Available && cond.Status == status && strings.Contains(cond.Message, text) {
				return true, nil
			}
		}
		return false, nil
	})
}

func TestAPIServicesOfBuiltInGroups(t *testing.T) {
	c, err := apiregistration.NewForConfig(w.b.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	services, err := c.ApiregistrationV1().APIServices().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := client(t, w.b.admin(t)).Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{"v1.": true}
	for _, g := range groups.Groups {
		for _, v := range g.Versions {
			shown[v.Version+"."+g.Name] = true
		}
	}
	for _, s := range services.Items {
		if !shown[s.Name] {
			t.Errorf("%s is not in discovery", s.Name)
		}
		delete(shown, s.Name)
		if len(s.Status.Conditions) != 1 || s.Status.Conditions[0].Status != apiregistrationv1.ConditionTrue {
			t.Errorf("%s: %+v", s.Name, s.Status.Conditions)
		}
	}
	delete(shown, "v1.apiregistration.k8s.io")
	if len(shown) > 0 || len(services.Items) < 20 {
		t.Errorf("%d APIServices, and none of %v", len(services.Items), shown)
	}
	if first := groups.Groups[0].Name; first != "" && first != "apiregistration.k8s.io" {
		t.Errorf("the first group is %q", first)
	}
}

func TestAggregatedAPI(t *testing.T) {
	o := newOutside(t, "aggregated", wardle())
	o.expose(t)
	o.apiService(t)
	o.awaitAvailable(t, apiregistrationv1.ConditionTrue, "")
	t.Run("discovery", o.inDiscovery)
	t.Run("OpenAPI", func(t *testing.T) {
		await(t, "its path", func(context.Context) (bool, error) {
			paths, err := o.k.Discovery().OpenAPIV3().Paths()
			return err == nil && paths["apis/wardle.example.com/v1"] != nil && paths["apis/apps/v1"] != nil &&
				paths["apis/apiregistration.k8s.io/v1"] != nil, err
		})
		document, err := o.raw(t, "/openapi/v3/apis/wardle.example.com/v1")
		if err != nil || !strings.Contains(string(document), `"wardle"`) {
			t.Errorf("document %s, %v", document, err)
		}
	})
	t.Run("OpenAPI of version 2", func(t *testing.T) {
		paths := openAPIV2Paths(t, o.member)
		if paths["/apis/wardle.example.com/v1/whoami"] != "wardle's" || paths["/api/v1/pods"] == "" {
			t.Errorf("its path: %q, of pods: %q", paths["/apis/wardle.example.com/v1/whoami"], paths["/api/v1/pods"])
		}
		// It speaks for itself alone.
		if paths["/api/v1/pods"] == "wardle's" || paths["/apis/foreign.example.com/v1/x"] != "" {
			t.Error("it has described what is not its own")
		}
	})
	t.Run("identity", o.frontProxy)
	t.Run("that leads to another tenant", func(t *testing.T) {
		o.lead(t, otherPod, o.other.port)
		o.awaitAvailable(t, apiregistrationv1.ConditionFalse, "refused")
		if _, err := o.raw(t, "/apis/wardle.example.com/v1/whoami"); err == nil {
			t.Error("a request got through")
		}
		// The rest of the API does not mind.
		if _, err := o.k.Discovery().ServerGroups(); err != nil {
			t.Error(err)
		}
		o.lead(t, ownPod, o.own.port)
		o.awaitAvailable(t, apiregistrationv1.ConditionTrue, "")
	})
	t.Run("gone", func(t *testing.T) {
		if err := o.aggregator(t).ApiregistrationV1().APIServices().Delete(t.Context(), "v1.wardle.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		await(t, "discovery without it", func(context.Context) (bool, error) {
			groups, err := o.k.Discovery().ServerGroups()
			return err == nil && !hasGroup(groups, "wardle.example.com"), err
		})
	})
	o.untouched(t)
}

func (o *outside) raw(t *testing.T, path string) ([]byte, error) {
	return o.k.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Raw()
}

// inDiscovery wants the group in both forms of discovery.
func (o *outside) inDiscovery(t *testing.T) {
	await(t, "aggregated discovery", func(context.Context) (bool, error) {
		_, lists, _ := o.k.Discovery().ServerGroupsAndResources() // which calls what has just come stale
		for _, l := range lists {
			if l.GroupVersion == "wardle.example.com/v1" && len(l.APIResources) == 1 && l.APIResources[0].Name == "flunders" {
				return true, nil
			}
		}
		return false, nil
	})
	await(t, "plain discovery", func(ctx context.Context) (bool, error) { // which watches for itself
		groups := &metav1.APIGroupList{}
		err := o.k.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", "application/json").Do(ctx).Into(groups)
		return err == nil && hasGroup(groups, "wardle.example.com") && hasGroup(groups, "apps"), err
	})
}

// frontProxy wants the server behind to know for whom a request is, and to be able
// to tell that it comes from this API server.
func (o *outside) frontProxy(t *testing.T) {
	jane := o.as(t, "jane", "system:masters", "readers")
	raw, err := client(t, jane).Discovery().RESTClient().Get().AbsPath("/apis/wardle.example.com/v1/whoami").
		SetHeader("X-Remote-User", "somebody-else").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var who struct {
		User, Authorization string
		Groups              []string
		By                  []byte
	}
	if err := json.Unmarshal(raw, &who); err != nil {
		t.Fatal(err)
	}
	if who.User != "jane" || !strings.Contains(fmt.Sprint(who.Groups), "readers") || who.Authorization != "" {
		t.Errorf("the server took the client for %s", raw)
	}
	var trust map[string]string
	await(t, "what servers are to trust", func(ctx context.Context) (bool, error) {
		config, err := o.k.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if err == nil {
			trust = config.Data
		}
		return found(err)
	})
	cert, err := x509.ParseCertificate(who.By)
	if err != nil {
		t.Fatalf("the API server showed no certificate: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(trust["requestheader-client-ca-file"])) {
		t.Fatalf("what servers are to trust: %v", trust)
	}
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil || trust["requestheader-allowed-names"] != fmt.Sprintf("[%q]", cert.Subject.CommonName) {
		t.Errorf("certificate of %s: %v; allowed are %s", cert.Subject.CommonName, err, trust["requestheader-allowed-names"])
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(o.ca.CAPEM())
	if _, err := cert.Verify(x509.VerifyOptions{Roots: clients, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a client certificate of the tenant's authority could make a front proxy")
	}
}

// An API server that says it is there, and whose documents never end, costs its
// tenant's discovery and not the process's memory. The tenant's other groups are
// where they were.
func TestAggregatedAPIOfBadBehaviour(t *testing.T) {
	o := newOutside(t, "endless", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/apis/wardle.example.com/v1") {
			wardle().ServeHTTP(w, req)
			return
		}
		endless(w, req)
	}))
	o.expose(t)
	o.apiService(t)
	o.awaitAvailable(t, apiregistrationv1.ConditionTrue, "")
	o.inDiscovery(t)
	if err := o.server.Ready(); err != nil {
		t.Error(err)
	}
	if paths := openAPIV2Paths(t, o.member); paths["/api/v1/pods"] == "" || paths["/apis/wardle.example.com/v1/whoami"] != "" {
		t.Errorf("OpenAPI of version 2: %d paths", len(paths))
	}
}
