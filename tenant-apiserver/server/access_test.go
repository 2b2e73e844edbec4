package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
)

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRBAC(t *testing.T) {
	admin := client(t, w.a.admin(t))
	jane := client(t, w.a.as(t, "jane"))
	ns := namespace(t, admin)
	_, err := jane.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
	wantForbidden(t, err, `User "jane" cannot list resource "configmaps"`)
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "jane"},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: "jane", APIGroup: rbacv1.GroupName}},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view", APIGroup: rbacv1.GroupName},
	}
	if _, err := admin.RbacV1().RoleBindings(ns).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The role is an aggregated one, filled by a controller.
	await(t, "permission", func(ctx context.Context) (bool, error) {
		_, err := jane.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
}

func TestCertificateOfAnotherTenantIsRefused(t *testing.T) {
	config := w.a.admin(t)
	config.Host = w.b.admin(t).Host
	config.CAData = w.b.ca.CAPEM()
	for _, m := range []*member{w.b, w.host} {
		config.Host, config.CAData = m.admin(t).Host, m.ca.CAPEM()
		_, err := client(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("%s answers %v, want 401", m.name, err)
		}
	}
}

func TestServiceAccountTokens(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}
	token, err := k.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}
	got, err := k.AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "system:serviceaccount:" + ns + ":default"; !got.Status.Authenticated || got.Status.User.Username != want {
		t.Errorf("review %+v, want %s", got.Status, want)
	}
	other, err := client(t, w.b.admin(t)).AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if other.Status.Authenticated {
		t.Error("another tenant's review accepts the token")
	}
	for m, want := range map[*member]func(error) bool{w.a: apierrors.IsForbidden, w.b: apierrors.IsUnauthorized, w.host: apierrors.IsUnauthorized} {
		config := rest.AnonymousClientConfig(m.admin(t))
		config.BearerToken = token.Status.Token
		_, err := client(t, config).CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
		if !want(err) {
			t.Errorf("%s answers the token with %v", m.name, err)
		}
	}
}

func TestLegacyTokenSecret(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "token", func(ctx context.Context) (bool, error) {
		s, err := k.CoreV1().Secrets(ns).Get(ctx, "token", metav1.GetOptions{})
		return err == nil && len(s.Data[corev1.ServiceAccountTokenKey]) > 0, err
	})
}

func TestAnonymousSeesHealthOnly(t *testing.T) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.a.ca.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	for path, want := range map[string]int{
		"/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200,
		"/": 401, "/api": 401, "/apis": 401, "/openapi/v3": 401, "/metrics": 401, "/api/v1/namespaces": 401,
		"/openid/v1/jwks": 401, "/debug/pprof/": 401,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+w.a.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "b.sublet.internal" // never decides anything
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, resp.StatusCode, want)
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("%s is served over %s", path, resp.Proto)
		}
	}
}

// Profiles and the like are the process's, so they tell one tenant of another.
func TestTenantSeesNothingOfTheProcess(t *testing.T) {
	k := client(t, w.a.admin(t))
	for _, path := range []string{"/metrics/slis", "/metrics/tenants", "/debug/pprof/", "/debug/flags/v", "/logs/", "/configz", "/flagz", "/statusz", "/api/v1/componentstatuses"} {
		err := k.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error()
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s answers %v, want 404", path, err)
		}
	}
}

func TestTenantDialsNothing(t *testing.T) {
	k := client(t, w.a.admin(t))
	loopback := client(t, w.a.server.Loopback())
	ns := namespace(t, k)
	if _, err := k.CoreV1().Pods(ns).Create(t.Context(), pod("victim"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ip := "10.0.0.1"
	patchStatus(t, loopback, ns, "victim", corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}})
	err := k.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").Name("victim:80").SubResource("proxy").Do(t.Context()).Error()
	if err == nil || !strings.Contains(err.Error(), "makes no connections") {
		t.Errorf("proxying to a pod: %v", err)
	}
}

func TestPodsAreCheckedByTheProvider(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	bad := pod("bad", func(s *corev1.PodSpec) {
		s.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	})
	_, err := k.CoreV1().Pods(ns).Create(t.Context(), bad, metav1.CreateOptions{})
	wantForbidden(t, err, "spec.containers[0].securityContext.privileged: privileged containers are not for tenants")
	good, err := k.CoreV1().Pods(ns).Create(t.Context(), pod("good"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "forbidden", Image: "image", ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}}}
	_, err = k.CoreV1().Pods(ns).UpdateEphemeralContainers(t.Context(), "good", good, metav1.UpdateOptions{})
	wantForbidden(t, err, "spec.ephemeralContainers[0]: not for tenants")
	// Impersonating the loopback's user does not make a request one of its.
	config := w.a.admin(t)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:apiserver", Groups: []string{"system:masters"}}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "good"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	for name, c := range map[string]*rest.Config{"admin": w.a.admin(t), "impersonator": config} {
		err = client(t, c).CoreV1().Pods(ns).Bind(t.Context(), bind, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "assigned to nodes by the provider") {
			t.Errorf("%s binds a pod: %v", name, err)
		}
		err = client(t, c).CoreV1().RESTClient().Post().Namespace(ns).Resource("bindings").Body(bind).Do(t.Context()).Error()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s binds a pod the old way: %v", name, err)
		}
	}
}

// A process holds many tenants: a panic on behalf of one costs one request.
func TestPanicCostsARequestOnly(t *testing.T) {
	for name, config := range map[string]*rest.Config{"client": w.a.admin(t), "loopback": w.a.server.Loopback()} {
		k := client(t, config)
		_, err := k.CoreV1().Pods("default").Create(t.Context(), pod("panic"), metav1.CreateOptions{})
		if err == nil {
			t.Errorf("%s: the pod was created", name)
		}
		if _, err := k.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("%s: after the panic: %v", name, err)
		}
	}
}

// boundPod is a pod on a node whose addresses lead nowhere.
func boundPod(t *testing.T, m *member, ns string) {
	t.Helper()
	k := client(t, m.admin(t))
	loopback := client(t, m.server.Loopback())
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "203.0.113.99"}},
	}}
	node, err := loopback.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.CoreV1().Pods(ns).Create(t.Context(), pod("web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Target: corev1.ObjectReference{Kind: "Node", Name: node.Name}}
	if err := loopback.CoreV1().Pods(ns).Bind(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestLogsComeFromTheKubeletHandler(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	boundPod(t, w.a, ns)
	got, err := k.CoreV1().Pods(ns).GetLogs("web", &corev1.PodLogOptions{Container: "c"}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := "asked for /containerLogs/" + ns + "/web/c"; string(got) != want {
		t.Errorf("logs %q, want %q", got, want)
	}
}

func execURL(t *testing.T, config *rest.Config, ns string) *url.URL {
	t.Helper()
	return client(t, config).CoreV1().RESTClient().Post().Namespace(ns).Resource("pods").Name("web").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"cat", "-"}, Stdin: true, Stdout: true}, scheme.ParameterCodec).URL()
}

func TestExecReachesTheKubeletHandler(t *testing.T) {
	config := w.a.admin(t)
	ns := namespace(t, client(t, config))
	boundPod(t, w.a, ns)
	url := execURL(t, config, ns)
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		t.Fatal(err)
	}
	websocket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"SPDY": spdy, "WebSocket": websocket} {
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: io.LimitReader(strings.NewReader("hello"), 5), Stdout: &out})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := out.String(); got != "cat -: hello" {
			t.Errorf("%s: output %q", name, got)
		}
	}
}

func TestKubernetesServiceLeadsToTheAdvertisedAddress(t *testing.T) {
	for _, m := range []*member{w.a, w.b, w.host} {
		k := client(t, m.admin(t))
		await(t, "endpoints of kubernetes", func(ctx context.Context) (bool, error) {
			slice, err := k.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			if err != nil {
				return found(err)
			}
			if got := slice.Endpoints[0].Addresses[0]; got != m.config.Advertise.Addr().String() {
				t.Errorf("%s: address %s", m.name, got)
			}
			if got := *slice.Ports[0].Port; got != int32(m.config.Advertise.Port()) {
				t.Errorf("%s: port %d", m.name, got)
			}
			return true, nil
		})
		service, err := k.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := m.config.ServiceCIDR.Addr().Next().String(); service.Spec.ClusterIP != want {
			t.Errorf("%s: service %s, want %s", m.name, service.Spec.ClusterIP, want)
		}
	}
}

func TestNodePortsAreTheTenants(t *testing.T) {
	k := client(t, w.a.admin(t))
	ns := namespace(t, k)
	service := func(port int32) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: port}}}}
	}
	got, err := k.CoreV1().Services(ns).Create(t.Context(), service(0), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p := int(got.Spec.Ports[0].NodePort); p < w.a.config.NodePorts[0] || p > w.a.config.NodePorts[1] {
		t.Errorf("node port %d is outside of %v", p, w.a.config.NodePorts)
	}
	for _, port := range []int32{got.Spec.Ports[0].NodePort, int32(w.b.config.NodePorts[0])} {
		if _, err := k.CoreV1().Services(ns).Create(t.Context(), service(port), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("node port %d: %v", port, err)
		}
	}
}
