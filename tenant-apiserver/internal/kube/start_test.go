package kube

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
)

// says is a handler that can be told from others.
type says string

func (s says) ServeHTTP(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }

// TestOpenMux: paths that are put into a mux are what upstream's own methods make of them.
func TestOpenMux(t *testing.T) {
	upstream, ours := mux.NewPathRecorderMux("upstream"), mux.NewPathRecorderMux("ours")
	for _, m := range []*mux.PathRecorderMux{upstream, ours} {
		m.NotFoundHandler(says("nothing"))
		m.Handle("/there", says("there"))
	}
	upstream.Handle("/below", says("below"))
	upstream.UnlistedHandlePrefix("/below/", says("below"))
	upstream.Handle("/alone", says("alone"))
	upstream.UnlistedHandle("/alone/", says("alone"))
	opened, err := openMux(ours)
	if err != nil {
		t.Fatal(err)
	}
	opened.add("/below", says("below"), true)
	opened.add("/alone", says("alone"), false)
	opened.add("/there", says("another"), true)
	opened.close()
	for _, path := range []string{"/there", "/there/x", "/below", "/below/", "/below/x/y", "/alone", "/alone/", "/alone/x", "/none"} {
		var answers [2]string
		for i, m := range []*mux.PathRecorderMux{upstream, ours} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			answers[i] = w.Body.String()
		}
		if answers[0] != answers[1] || answers[0] == "" {
			t.Errorf("%s: upstream's says %q, ours %q", path, answers[0], answers[1])
		}
	}
	if a, b := upstream.ListedPaths(), ours.ListedPaths(); !slices.Equal(a, b) {
		t.Errorf("upstream's lists %v, ours %v", a, b)
	}
	ours.Unregister("/below")
	if slices.Contains(ours.ListedPaths(), "/below") {
		t.Error("a path stays")
	}
}

// TestDropChecks: a server behind another one keeps the checks that only it has.
func TestDropChecks(t *testing.T) {
	var front, behind genericapiserver.GenericAPIServer
	for _, s := range []*genericapiserver.GenericAPIServer{&front, &behind} {
		if err := s.AddHealthChecks(healthz.NamedCheck("both", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := behind.AddHealthChecks(healthz.NamedCheck("alone", nil)); err != nil {
		t.Fatal(err)
	}
	if err := dropChecks(&behind, &front); err != nil {
		t.Fatal(err)
	}
	for _, name := range fieldsOfChecks {
		left, err := checksOf(&behind, name)
		if err != nil || len(*left) != 1 || (*left)[0].Name() != "alone" {
			t.Errorf("%s: %v, %v", name, left, err)
		}
		if asked, err := checksOf(&front, name); err != nil || len(*asked) != 1 {
			t.Errorf("%s of the front: %v, %v", name, asked, err)
		}
	}
}

// TestAllAggregated: roles are aggregated when all rules of all that they select are there.
func TestAllAggregated(t *testing.T) {
	rule := func(resource string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{resource}}
	}
	role := func(name string, resources ...string) rbacv1.ClusterRole {
		r := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"into": "all"}}}
		for _, resource := range resources {
			r.Rules = append(r.Rules, rule(resource))
		}
		return r
	}
	for _, c := range []struct {
		has  []string
		want bool
	}{{nil, false}, {[]string{"pods"}, false}, {[]string{"secrets", "pods"}, true}} {
		all := role("all", c.has...)
		all.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"into": "all"}}}}
		if got, err := allAggregated([]rbacv1.ClusterRole{all, role("one", "pods"), role("two", "secrets")}); err != nil || got != c.want {
			t.Errorf("with %v: %v, %v", c.has, got, err)
		}
	}
}
