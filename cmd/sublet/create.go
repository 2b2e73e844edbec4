package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

// waitPoll is how often a waiting command looks: often enough that it is not what
// one waits for.
const waitPoll = 50 * time.Millisecond

type createFlags struct {
	wait, ifNotExists bool
	timeout           time.Duration
	sandbox, plan     string
	authentication    string
	store             storeFlags
}

func newCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a tenant",
		Long: `Create a tenant: a Kubernetes cluster of its own.

The name is a DNS label: at most 63 lower-case letters, digits and '-'. Its plan says
what it may have, and can be changed later. Its pods run in the plan's first sandbox, in
the built-in plans gVisor, or with --sandbox runc-userns in user namespaces of this
machine's kernel under the restricted Pod Security level. The sandbox cannot be changed
later.`,
		Example: "  sublet create acme --wait\n  sublet create acme --plan large\n  sublet create acme --sandbox runc-userns",
		Args:    oneName, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until the tenant's API answers")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long to wait")
	cmd.Flags().StringVar(&f.sandbox, "sandbox", "", "what the pods run in: gvisor or runc-userns (default: the plan's)")
	cmd.Flags().StringVar(&f.plan, "plan", v1alpha1.DefaultPlan, "what the tenant may have; sublet plan list shows the plans")
	must(cmd.RegisterFlagCompletionFunc("plan", func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return a.completePlan(cmd, nil, toComplete)
	}))
	f.store.add(cmd)
	cmd.Flags().StringVar(&f.authentication, "authentication-config", "", "a file that names OpenID Connect issuers whose tokens its API takes: an AuthenticationConfiguration, as for kube-apiserver")
	cmd.Flags().BoolVar(&f.ifNotExists, "if-not-exists", false, "succeed when the tenant exists already")
	must(cmd.RegisterFlagCompletionFunc("sandbox", cobra.FixedCompletions([]string{string(tenant.GVisor), string(tenant.RuncUserNS)}, cobra.ShellCompDirectiveNoFileComp)))
	output := addOutput(cmd, "text", "table", "json", "yaml", "name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.create(cmd.Context(), args[0], f, output)
	}
	return cmd
}

func (a *app) create(ctx context.Context, name string, f createFlags, output *outputFlag) error {
	if f.sandbox != "" {
		if err := tenant.Sandbox(f.sandbox).Validate(); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	if err := checkTimeout(f.timeout); err != nil {
		return err
	}
	store, err := f.store.spec()
	if err != nil {
		return err
	}
	issuers, err := readAuthentication(f.authentication, a.in)
	if err != nil {
		return err
	}
	api, err := a.host()
	if err != nil {
		return err
	}
	p, err := getPlan(ctx, api, f.plan)
	if err == nil {
		err = hasSandbox(p, f.sandbox)
	}
	if err != nil {
		return err
	}
	vc := &v1alpha1.VirtualCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.VirtualClusterSpec{Sandbox: f.sandbox, Plan: f.plan, Store: store, Authentication: issuers},
	}
	said := "created"
	err = api.Create(ctx, vc)
	if apierrors.IsAlreadyExists(err) {
		vc, err = existing(ctx, api, vc, f)
		said = "exists already"
	}
	if err != nil {
		return explain(err)
	}
	if f.wait {
		if vc, err = a.waitReady(ctx, api, vc, f.timeout); err != nil {
			return err
		}
		said += " and is ready"
	}
	vc.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("VirtualCluster"))
	if ok, err := output.print(a.out, bare(vc)); ok {
		return err
	}
	if output.value != "text" {
		return a.printList([]v1alpha1.VirtualCluster{*vc}, output.value == "name")
	}
	_, err = fmt.Fprintf(a.out, "tenant %s %s\n", name, said)
	return err
}

// existing returns the tenant that has the name when that is what was asked for.
func existing(ctx context.Context, api client.Client, wanted *v1alpha1.VirtualCluster, f createFlags) (*v1alpha1.VirtualCluster, error) {
	name := wanted.Name
	vc, err := getTenant(ctx, api, name)
	switch {
	case err != nil:
		return nil, err
	case vc.DeletionTimestamp != nil:
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q is being deleted: wait for it with `sublet delete %s --wait --ignore-not-found`, then try again", name, name)}
	case !f.ifNotExists:
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q exists already: choose another name, or use --if-not-exists", name)}
	case vc.Spec.Plan != f.plan:
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q exists with the plan %q: change it with `sublet plan set %s %s`", name, vc.Spec.Plan, name, f.plan)}
	case f.sandbox != "" && vc.Spec.Sandbox != f.sandbox:
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q exists with the sandbox %q, which cannot be changed to %q: choose another name", name, vc.Spec.Sandbox, f.sandbox)}
	case !sameStore(vc, wanted):
		return nil, &exitError{exitConflict, fmt.Errorf("tenant %q exists, and is kept elsewhere (%s): choose another name, or move it with `sublet store migrate`", name, describeStore(vc))}
	}
	return vc, nil
}

// waitReady waits until the tenant's API answers. It returns at once when waiting
// will not help.
func (a *app) waitReady(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster, timeout time.Duration) (*v1alpha1.VirtualCluster, error) {
	p := newProgress(a.err)
	defer p.done()
	uid, name := vc.UID, vc.Name
	state := ""
	err := poll(ctx, timeout, func(ctx context.Context) (bool, error) {
		now, err := getTenant(ctx, api, name)
		if err != nil {
			return false, err
		}
		ready := meta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady)
		switch {
		case now.UID != uid || now.DeletionTimestamp != nil:
			return false, &exitError{exitConflict, fmt.Errorf("tenant %q was deleted by somebody else", name)}
		case now.Status.Phase == v1alpha1.PhaseReady || now.Status.Phase == v1alpha1.PhaseAsleep:
			vc = now
			return true, nil
		case now.Status.Phase == v1alpha1.PhaseFailed && ready != nil:
			return false, fmt.Errorf("tenant %q failed (%s): %s; remove it with `sublet delete %s`", name, ready.Reason, ready.Message, name)
		case ready != nil && ready.Message != "":
			state = "waiting for tenant " + name + ": " + ready.Message
		default:
			state = "waiting for tenant " + name
		}
		p.say(state)
		return false, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, &exitError{exitTimeout, fmt.Errorf("tenant %q is not ready after %s (%s): it goes on starting; `sublet describe %s` tells more", name, timeout, state, name)}
	}
	return vc, err
}

// checkTimeout refuses a --timeout that has passed before it began.
func checkTimeout(d time.Duration) error {
	if d <= 0 {
		return usageErrorf("--timeout %s is not possible: give a duration above 0, such as 2m", d)
	}
	return nil
}

// poll calls done until it returns true or an error, timeout has passed, or ctx
// ends.
func poll(ctx context.Context, timeout time.Duration, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
