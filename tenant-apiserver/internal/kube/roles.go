package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
)

// rolesPoll is how often it is looked whether cluster roles are aggregated. Templates
// alone do.
const rolesPoll = 10 * time.Millisecond

// AggregateRoles runs upstream's controller for aggregated cluster roles until they have
// all the rules that are for them: a template of other control planes has them already,
// whose own controllers then need not write any. The instance has to run.
func (i *Instance) AggregateRoles(ctx context.Context) error {
	controller := clusterroleaggregation.NewClusterRoleAggregation(i.parts.informers.Rbac().V1().ClusterRoles(), i.parts.client.RbacV1())
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { controller.Run(ctx, 1) })
	err := wait.PollUntilContextCancel(ctx, rolesPoll, true, func(ctx context.Context) (bool, error) {
		roles, err := i.parts.client.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return allAggregated(roles.Items)
	})
	if err != nil {
		return fmt.Errorf("aggregate cluster roles: %w", err)
	}
	return nil
}

// allAggregated says whether every aggregated role has the rules of all roles that it selects.
func allAggregated(roles []rbacv1.ClusterRole) (bool, error) {
	for _, into := range roles {
		if into.AggregationRule == nil {
			continue
		}
		for _, s := range into.AggregationRule.ClusterRoleSelectors {
			selector, err := metav1.LabelSelectorAsSelector(&s)
			if err != nil {
				return false, err
			}
			for _, of := range roles {
				if of.Name != into.Name && selector.Matches(labels.Set(of.Labels)) && !hasRules(into.Rules, of.Rules) {
					return false, nil
				}
			}
		}
	}
	return true, nil
}

// hasRules says whether all of rules are among those of a role.
func hasRules(there, rules []rbacv1.PolicyRule) bool {
	for _, rule := range rules {
		found := false
		for _, other := range there {
			found = found || equality.Semantic.DeepEqual(rule, other)
		}
		if !found {
			return false
		}
	}
	return true
}
