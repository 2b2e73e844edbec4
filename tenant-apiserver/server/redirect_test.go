package server

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// A pod that answers whatever its API server asks with a redirect to another tenant's:
// the API server does not go there, on no way on which it speaks to pods.
func TestRedirectsLeadNowhere(t *testing.T) {
	var o *outside
	o = newOutside(t, "redirects", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		http.Redirect(rw, req, o.other.URL+req.URL.Path, http.StatusTemporaryRedirect)
	}))
	o.expose(t)
	t.Run("webhook", func(t *testing.T) {
		defer o.hook(t, o.byService("/validate"))()
		o.awaitError(t, "refused connection", o.other.URL, "refused")
	})
	t.Run("aggregated API", func(t *testing.T) {
		o.apiService(t)
		o.awaitAvailable(t, apiregistrationv1.ConditionFalse, "307")
		if code := o.plain(t, "/apis/wardle.example.com/v1/flunders", nil); code < 400 {
			t.Errorf("a request got %d", code)
		}
	})
	t.Run("proxies", func(t *testing.T) {
		made, err := o.k.CoreV1().Pods(o.ns).Create(t.Context(), pod("p"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Status.PodIP, made.Status.PodIPs = ownPod, []corev1.PodIP{{IP: ownPod}}
		if _, err := o.k.CoreV1().Pods(o.ns).UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{
			fmt.Sprintf("/api/v1/namespaces/%s/pods/https:p:%d/proxy/x", o.ns, o.own.port),
			fmt.Sprintf("/api/v1/namespaces/%s/services/https:app:https/proxy/x", o.ns),
		} {
			for name, header := range map[string]http.Header{
				"plain": nil, "upgraded": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
			} {
				await(t, "an answer of the pod", func(context.Context) (bool, error) {
					code := o.plain(t, path, header)
					if code < 300 || code == http.StatusSwitchingProtocols {
						t.Errorf("%s, %s: %d", path, name, code)
					}
					return code != http.StatusServiceUnavailable, nil // until the slice is known
				})
			}
		}
	})
	o.untouched(t)
}

// plain sends one request, as who follows no redirects, and returns the answer's code.
func (o *outside) plain(t *testing.T, path string, header http.Header) int {
	t.Helper()
	config := o.admin(t)
	config.NextProtos = []string{"http/1.1"} // which has upgrades
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}
