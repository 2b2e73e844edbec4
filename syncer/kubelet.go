package syncer

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// Kubelet answers for the kubelets of the tenant's nodes: the requests that an API
// server makes there for logs, exec, attach and port-forward
// (k8s.io/kubernetes/pkg/registry/core/pod, LogLocation and streamLocation), and
// no others. Which host pod is meant follows from the mapping of names and the UIDs
// of both live pods, never from what the tenant wrote into its pod.
func (s *Syncer) Kubelet() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.serveLog)
	for _, subresource := range []string{"exec", "attach"} {
		serve := func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, subresource) }
		mux.HandleFunc("/"+subresource+"/{namespace}/{pod}/{container}", serve)
		mux.HandleFunc("/"+subresource+"/{namespace}/{pod}/{uid}/{container}", serve)
	}
	forward := func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, "portforward") }
	mux.HandleFunc("/portForward/{namespace}/{pod}", forward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", forward)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the node is a view of one that is shared: its kubelet answers logs, exec, attach and port-forward of your pods, and nothing else", http.StatusForbidden)
	})
	return mux
}

// logParams are the parameters of a kubelet's logs, which the host's API calls the
// same.
var logParams = []string{"follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"}

func (s *Syncer) serveLog(w http.ResponseWriter, r *http.Request) {
	pair, err := s.pair(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	query, asked := url.Values{"container": {r.PathValue("container")}}, r.URL.Query()
	for _, p := range logParams {
		if asked.Has(p) {
			query.Set(p, asked.Get(p))
		}
	}
	s.streams.log(w, r, pair, query, s.refuse)
}

// streamParams maps a kubelet's switches to those of the host's API.
var streamParams = map[string]string{"input": "stdin", "output": "stdout", "error": "stderr", "tty": "tty"}

func (s *Syncer) serveStream(w http.ResponseWriter, r *http.Request, subresource string) {
	pair, err := s.pair(r)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	query, asked := url.Values{}, r.URL.Query()
	if subresource == "portforward" {
		if ports := asked["port"]; len(ports) > 0 {
			query["ports"] = ports
		}
	} else {
		query.Set("container", r.PathValue("container"))
		for kubelet, api := range streamParams {
			query.Set(api, fmt.Sprint(asked.Get(kubelet) == "1" || asked.Get(kubelet) == "true"))
		}
	}
	if subresource == "exec" {
		query["command"] = asked["command"]
	}
	s.streams.upgrade(w, r, pair, subresource, query, s.refuse)
}

// podPair is a pod on both sides, proven to belong together.
type podPair struct {
	tenantPod, hostPod *corev1.Pod
	reveal             translate.Reveal
}

// pair finds the two pods that a request means.
func (s *Syncer) pair(r *http.Request) (podPair, error) {
	ctx, name := r.Context(), tenant.Name{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	tenantPod, err := s.tenantAPI.CoreV1().Pods(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return podPair{}, err
	}
	gone := apierrors.NewNotFound(corev1.Resource("pods"), name.Name)
	if uid := r.PathValue("uid"); uid != "" && uid != string(tenantPod.UID) {
		return podPair{}, gone
	}
	hostPod, err := s.hostPodOf(ctx, name, tenantPod)
	if err != nil {
		return podPair{}, err
	}
	if hostPod == nil {
		return podPair{}, gone
	}
	return podPair{tenantPod: tenantPod, hostPod: hostPod, reveal: s.t.Reveal(tenantPod, hostPod)}, nil
}

// hostPodOf reads a pod's host pod; nil when there is none, or only one of an
// older pod of that name.
func (s *Syncer) hostPodOf(ctx context.Context, name tenant.Name, tenantPod *corev1.Pod) (*corev1.Pod, error) {
	host := s.hostPods()
	hostPod, ok, err := host.Live(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("the pod's containers cannot be looked up: %w", err)
	}
	if !ok {
		return nil, nil
	}
	owner, err := host.Owner(hostPod)
	if err != nil || owner != tenantPod.UID {
		return nil, nil
	}
	return hostPod, nil
}

// refuse answers like a kubelet: with a line of text. Errors of the host's API are
// for the provider's log, for they name its objects.
func (s *Syncer) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if apierrors.IsNotFound(err) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	s.logger.Warn("a pod cannot be reached for its tenant", "path", r.URL.Path, "error", err)
	http.Error(w, "the pod's containers cannot be reached now", http.StatusServiceUnavailable)
}
