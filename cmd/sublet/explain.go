package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
)

// maxExplanation bounds what is read of a cell's answer.
const maxExplanation = 16 << 20

func newExplain(a *app) *cobra.Command {
	var fromHost string
	cmd := &cobra.Command{
		Use: "explain NAME KIND/NAMESPACE/OBJECT | explain --from-host [KIND/]NAMESPACE/OBJECT", Short: "Show what became of a tenant's object on the host, and why",
		Long: `Show what became of a tenant's object on the host, and why.

It tells which host object was made for it, what becomes of each of its fields there
(copied, translated, forced, dropped, or refused and by which rule), what its syncer
is about to do, and what failed last. KIND is pod, service, endpointslice, configmap,
secret, pvc, networkpolicy, ingress, gateway or httproute, or RESOURCE.GROUP of a kind that the plan's rules bring
to the host (certificates.cert-manager.io/default/web). With --from-host it starts
from the host's object, a pod if no kind is said.
-o json and -o yaml show both objects too, but not what Secrets hold. A tenant that
sleeps is woken.`,
		Args: cobra.MaximumNArgs(2), ValidArgsFunction: a.completeName,
	}
	cmd.Flags().StringVar(&fromHost, "from-host", "", "explain an object of the host: [KIND/]NAMESPACE/OBJECT")
	output := addOutput(cmd, "table", "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.explainObject(cmd.Context(), args, fromHost)
		if err != nil {
			return err
		}
		if ok, err := output.print(a.out, e); ok {
			return err
		}
		return a.printExplanation(e)
	}
	return cmd
}

// explainObject asks the cell of the tenant that is meant.
func (a *app) explainObject(ctx context.Context, args []string, fromHost string) (*syncer.Explanation, error) {
	query := url.Values{}
	name := ""
	switch {
	case fromHost != "" && len(args) > 0:
		return nil, usageErrorf("--from-host says everything: no arguments are expected with it")
	case fromHost != "":
		parts := strings.Split(fromHost, "/")
		if len(parts) == 2 {
			parts = append([]string{"pods"}, parts...)
		}
		resource, err := explainable("--from-host", fromHost, parts)
		if err != nil {
			return nil, err
		}
		if name, err = a.tenantOf(ctx, parts[1]); err != nil {
			return nil, err
		}
		query.Set("kind", resource)
		query.Set("host", parts[2])
	case len(args) != 2:
		return nil, usageErrorf("a tenant's name and KIND/NAMESPACE/OBJECT were expected, or --from-host")
	default:
		parts := strings.Split(args[1], "/")
		resource, err := explainable("the object", args[1], parts)
		if err != nil {
			return nil, err
		}
		name = args[0]
		query.Set("kind", resource)
		query.Set("namespace", parts[1])
		query.Set("name", parts[2])
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	return a.askForExplanation(ctx, name, query)
}

// explainable returns the resource in the three parts of what is to be explained: kind,
// namespace and name.
func explainable(what, text string, parts []string) (string, error) {
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return "", usageErrorf("%s %q: KIND/NAMESPACE/OBJECT was expected", what, text)
	}
	resource, ok := syncer.Resource(parts[0])
	if !ok {
		return "", usageErrorf("%s %q: nothing of the kind %q goes to the host; pod, service, endpointslice, configmap, secret, pvc, networkpolicy, ingress, gateway, httproute or RESOURCE.GROUP of a plan's rule was expected", what, text, parts[0])
	}
	return resource, nil
}

// tenantOf returns the name of the tenant that a host namespace belongs to.
func (a *app) tenantOf(ctx context.Context, namespace string) (string, error) {
	api, err := a.host()
	if err != nil {
		return "", err
	}
	var list v1alpha1.VirtualClusterList
	if err := api.List(ctx, &list, &client.ListOptions{}); err != nil {
		return "", fmt.Errorf("list the tenants: %w", explain(err))
	}
	for _, vc := range list.Items {
		if vc.Status.Namespace == namespace {
			return vc.Name, nil
		}
	}
	return "", &exitError{exitNotFound, fmt.Errorf("no tenant has the host namespace %q: `sublet describe NAME` shows a tenant's", namespace)}
}

func (a *app) askForExplanation(ctx context.Context, name string, query url.Values) (*syncer.Explanation, error) {
	cell, id, err := a.cellOf(ctx, name)
	if err != nil {
		return nil, err
	}
	defer cell.Close()
	if _, err := cell.Wake(ctx, id, "sublet explain"); err != nil {
		return nil, fmt.Errorf("wake tenant %q: %w", name, err)
	}
	vc, err := a.readTenant(ctx, name)
	if err != nil {
		return nil, err
	}
	e := &syncer.Explanation{}
	return e, askCell(ctx, a.dir.cellSocket(vc.Status.Cell), "/tenants/"+string(id)+"/explain?"+query.Encode(), e)
}

func (a *app) readTenant(ctx context.Context, name string) (*v1alpha1.VirtualCluster, error) {
	api, err := a.host()
	if err != nil {
		return nil, err
	}
	return getTenant(ctx, api, name)
}

// askCell reads what a cell answers to a GET.
func askCell(ctx context.Context, socket, path string, into any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cell"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the cell: %w", err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return fmt.Errorf("ask the cell: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxExplanation))
	switch {
	case err != nil:
		return fmt.Errorf("read the cell's answer: %w", err)
	case answer.StatusCode == http.StatusNotFound:
		return &exitError{exitNotFound, errors.New(strings.TrimSpace(string(body)))}
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("ask the cell: %s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("decode the cell's answer: %w", err)
	}
	return nil
}

func (a *app) printExplanation(e *syncer.Explanation) error {
	rows := [][]string{
		{cmp.Or(e.Kind, "pods") + ":", e.Namespace + "/" + e.Name},
		{"Host's:", e.HostNamespace + "/" + e.HostName},
		{"Pairing:", e.Pairing},
		{"Held:", held(e)},
		{"Tenant's queue:", fmt.Sprintf("%d waiting, %d failing, %d writes wait for their turn", e.Queued, e.Failing, e.WaitingWrites)},
		{"Patrol:", fmt.Sprintf("%d rounds, %d compared, %d repaired, %d marks restored, %d unreadable", e.Patrol.Rounds, e.Patrol.Compared, e.Patrol.Repaired, e.Patrol.Remarked, e.Patrol.Unreadable)},
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Passes:")
	rows = [][]string{{"", "PASS", "STATE", "FAILURES", "LAST ERROR"}}
	for _, p := range e.Passes {
		first, _, _ := strings.Cut(p.Error, "\n")
		rows = append(rows, []string{"", p.Pass, passState(p), fmt.Sprint(p.Failures), first})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Fields:")
	rows = [][]string{{"", "FIELD", "FATE", "RULE", "REASON"}}
	for _, f := range e.Fields {
		rows = append(rows, []string{"", f.Field, f.Fate, f.Rule, f.Reason})
	}
	return table(a.out, rows)
}

// held says why an object is not on the host, if that is known.
func held(e *syncer.Explanation) string {
	switch {
	case e.Held != "":
		return e.Held
	case e.Line > 0:
		return fmt.Sprintf("number %d of the tenant's pods that wait until the host's scheduler has placed others", e.Line)
	default:
		return "no"
	}
}

func passState(p syncer.PassState) string {
	switch {
	case p.Working:
		return "at work"
	case p.Queued:
		return "waiting"
	case p.Failures > 0:
		return "failed " + age(p.FailedAt) + " ago, will be tried again"
	case !p.Due.IsZero():
		return "in step, again in " + time.Until(p.Due).Round(time.Second).String()
	default:
		return "in step"
	}
}

// syncers are those that run in a cell.
type syncers struct {
	mu      sync.Mutex
	running map[tenant.ID]*syncer.Syncer // guarded by mu
}

func newSyncers() *syncers { return &syncers{running: map[tenant.ID]*syncer.Syncer{}} }

func (s *syncers) get(id tenant.ID) (*syncer.Syncer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.running[id]
	return found, ok
}

func (s *syncers) put(id tenant.ID, running *syncer.Syncer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[id] = running
}

// remove forgets a syncer that has ended, unless another has taken its place.
func (s *syncers) remove(id tenant.ID, ended *syncer.Syncer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] == ended {
		delete(s.running, id)
	}
}

// with adds to a cell's API, which is for its socket:
//
//	GET /tenants/{id}/explain?kind=RESOURCE&namespace=…&name=…   syncer.Explanation or 404
//	GET /tenants/{id}/explain?kind=RESOURCE&host=NAME            the same, of a host object
func (s *syncers) with(cell http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tenants/{id}/explain", s.serveExplain)
	mux.Handle("/", cell)
	return mux
}

func (s *syncers) serveExplain(w http.ResponseWriter, r *http.Request) {
	running, ok := s.get(tenant.ID(r.PathValue("id")))
	if !ok {
		http.Error(w, "the tenant's syncer does not run now: try again", http.StatusServiceUnavailable)
		return
	}
	var e *syncer.Explanation
	var err error
	name := tenant.Name{Namespace: r.FormValue("namespace"), Name: r.FormValue("name")}
	kind := r.FormValue("kind")
	if host := r.FormValue("host"); host != "" {
		e, err = running.ExplainHost(r.Context(), kind, host)
	} else {
		e, err = running.Explain(r.Context(), kind, name)
	}
	switch {
	case errors.Is(err, syncer.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e) // the client is gone; nobody else wants to know
	}
}
