package kube

import (
	"context"
	"slices"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"sublet.dev/tenant-apiserver/plan"
)

// addAudit records requests as the plan says at the moment.
func (p *parts) addAudit(context.Context) error {
	if p.opts.AuditLog == nil || p.opts.Terms == nil {
		return nil
	}
	p.generic.AuditBackend = auditlog.NewBackend(p.opts.AuditLog, auditlog.FormatJson, auditv1.SchemeGroupVersion)
	if p.opts.AuditWebhook != "" {
		webhook, err := newAuditWebhook(p.opts.AuditWebhook, p.opts.AuditLabels)
		if err != nil {
			return err
		}
		p.generic.AuditBackend = audit.Union(p.generic.AuditBackend, webhook)
	}
	p.generic.AuditPolicyRuleEvaluator = auditPolicy{
		terms: p.opts.Terms,
		levels: map[plan.Level]audit.PolicyRuleEvaluator{
			plan.AuditMetadata: evaluator(auditinternal.LevelMetadata),
			plan.AuditRequest:  evaluator(auditinternal.LevelRequest),
		},
	}
	return nil
}

// auditPolicy is the audit policy of a plan that may change.
type auditPolicy struct {
	terms  func() *plan.Terms
	levels map[plan.Level]audit.PolicyRuleEvaluator
}

// EvaluatePolicyRule implements audit.PolicyRuleEvaluator.
func (a auditPolicy) EvaluatePolicyRule(r authorizer.Attributes) audit.RequestAuditConfig {
	if e := a.levels[a.terms().Audit]; e != nil {
		return e.EvaluatePolicyRule(r)
	}
	return audit.RequestAuditConfig{Level: auditinternal.LevelNone}
}

// evaluator records requests from outside at a level, when they are answered. What
// may hold secrets is never recorded with its content, and neither is what we know
// nothing of: custom resources and what aggregated servers answer.
func evaluator(level auditinternal.Level) audit.PolicyRuleEvaluator {
	rules := []auditinternal.PolicyRule{
		{Level: auditinternal.LevelNone, Users: []string{user.APIServerUser}},
		{Level: auditinternal.LevelNone, NonResourceURLs: []string{"/healthz*", "/livez*", "/readyz*", "/version"}},
		{Level: auditinternal.LevelMetadata, Resources: []auditinternal.GroupResources{
			{Resources: []string{"secrets", "configmaps", "serviceaccounts/token"}},
			{Group: "authentication.k8s.io"},
			{Group: "certificates.k8s.io"},
		}},
	}
	if level == auditinternal.LevelRequest {
		rules = append(rules, auditinternal.PolicyRule{Level: level, Resources: builtInGroups()})
	}
	rules = append(rules, auditinternal.PolicyRule{Level: auditinternal.LevelMetadata})
	return policy.NewPolicyRuleEvaluator(&auditinternal.Policy{
		OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived}, OmitManagedFields: true, Rules: rules,
	})
}

// builtInGroups are all resources of the API groups that the control plane has by
// itself.
func builtInGroups() []auditinternal.GroupResources {
	var names []string
	for _, v := range legacyscheme.Scheme.PrioritizedVersionsAllGroups() {
		if !slices.Contains(names, v.Group) {
			names = append(names, v.Group)
		}
	}
	groups := make([]auditinternal.GroupResources, 0, len(names))
	for _, name := range names {
		groups = append(groups, auditinternal.GroupResources{Group: name})
	}
	return groups
}
