package v1alpha1_test

import (
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	servervalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
)

// plans judges plans as the host's API does.
type plans struct {
	structural *schema.Structural
	validator  servervalidation.SchemaValidator
	rules      *cel.Validator
}

func newPlans(t *testing.T) plans {
	t.Helper()
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(v1alpha1.PlanManifest, &crd); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&crd, &internal, nil); err != nil {
		t.Fatal(err)
	}
	internal.Status.StoredVersions = []string{"v1alpha1"}
	if errs := validation.ValidateCustomResourceDefinition(t.Context(), &internal); len(errs) > 0 { // what the expressions cost, too
		t.Fatal(errs)
	}
	of := internal.Spec.Validation
	if of == nil {
		of = internal.Spec.Versions[0].Schema
	}
	structural, err := schema.NewStructural(of.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := servervalidation.NewSchemaValidator(of.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	return plans{structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
}

func (p plans) judge(t *testing.T, spec string) field.ErrorList {
	t.Helper()
	plan := map[string]any{}
	if err := yaml.Unmarshal([]byte("apiVersion: sublet.dev/v1alpha1\nkind: Plan\nmetadata: {name: p}\nspec:\n"+spec), &plan); err != nil {
		t.Fatal(err)
	}
	defaulting.Default(plan, p.structural)
	errs := servervalidation.ValidateCustomResource(nil, plan, p.validator)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, p.structural, plan)...)
	more, _ := p.rules.Validate(t.Context(), nil, p.structural, plan, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, more...)
}

const goodRule = `
  customResources:
  - group: cert-manager.io
    version: v1
    kind: Certificate
    resource: certificates
    direction: ToHost
    fields:
    - path: spec.dnsNames
    - {path: spec.secretName, result: Secret}
    - {path: spec.issuerRef.name, values: [public]}
    - {path: "spec.rules[].secret", reference: Secret}
    - {path: spec.kind, value: {a: 1}}
    status: ["status.conditions[].type", status.notAfter]
    hostLabels: [{name: example.org/x, value: z}]
  - group: cert-manager.io
    version: v1
    kind: ClusterIssuer
    resource: clusterissuers
    direction: FromHost
    fields: [{path: spec.display}, {path: status.ready}]
    select: {names: [public]}
`

// The host's API takes rules that can be used, and says of others what is wrong.
func TestCustomResourceRules(t *testing.T) {
	p := newPlans(t)
	if errs := p.judge(t, goodRule); len(errs) > 0 {
		t.Fatal(errs)
	}
	for name, c := range map[string]struct{ old, new, says string }{
		"a kind of Kubernetes":  {"group: cert-manager.io\n    version: v1\n    kind: Certificate", "group: rbac.authorization.k8s.io\n    version: v1\n    kind: Role", "Kubernetes' or Sublet's own"},
		"snapshots":             {"group: cert-manager.io\n    version: v1\n    kind: Certificate", "group: snapshot.storage.k8s.io\n    version: v1\n    kind: VolumeSnapshot", "snapshotClasses of the plan"},
		"a core kind":           {"group: cert-manager.io", "group: apps", "should match"},
		"a direction":           {"ToHost", "Both", "supported values"},
		"metadata":              {"path: spec.dnsNames", "path: metadata.labels", "never cross"},
		"all metadata":          {"path: spec.dnsNames", "path: metadata", "never cross"},
		"status down":           {"path: spec.dnsNames", "path: status.x", "do not go ToHost"},
		"a path below":          {"path: spec.dnsNames", "path: spec.secretName.x", "no field may be below another"},
		"a path above":          {"path: spec.dnsNames", "path: spec", "no field may be below another"},
		"items above":           {"path: spec.dnsNames", "path: spec.rules", "no field may be below another"},
		"twice":                 {"path: spec.dnsNames", "path: spec.secretName", "Duplicate"},
		"no path":               {"path: spec.dnsNames", "path: spec..x", "should match"},
		"two fates":             {"result: Secret", "result: Secret, reference: Secret", "one of reference"},
		"what reference":        {"reference: Secret", "reference: node", "should match"},
		"what result":           {"result: Secret", "result: ConfigMap", "supported values"},
		"spec back":             {"status.notAfter", "spec.notAfter", "should match"},
		"back below":            {"status.notAfter", "status.conditions", "no path may be below another"},
		"a label of ours":       {"example.org/x", "label.sublet.dev/x", "outside of sublet.dev"},
		"shown without select":  {"select: {names: [public]}", "max: 3", "select says"},
		"select of nothing":     {"select: {names: [public]}", "select: {namespace: x}", "names or matchLabels"},
		"select to the host":    {"hostLabels: [{name: example.org/x, value: z}]", "select: {names: [x]}", "select says"},
		"shown with references": {"{path: spec.display}", "{path: spec.display, reference: Secret}", "FromHost are copied"},
		"two rules of a kind":   {"kind: ClusterIssuer\n    resource: clusterissuers", "kind: Certificate\n    resource: certificates", "Duplicate"},
	} {
		changed := strings.Replace(goodRule, c.old, c.new, 1)
		if errs := p.judge(t, changed); changed == goodRule || !strings.Contains(errs.ToAggregate().Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, errs, c.says)
		}
	}
}
