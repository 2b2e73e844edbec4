package rules

import (
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/syncer/engine"
)

// IsView says whether a definition in a tenant's API was made from the host's.
func IsView(tenantDefinition metav1.Object) bool {
	return tenantDefinition.GetAnnotations()[AnnotationView] != ""
}

// Definition returns what a tenant's API gets of the host's definition: the version
// that crosses, with its schema, and no conversion. The error says why the rule is
// not about that definition.
func (r *Rule) Definition(hostDefinition *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, error) {
	spec := hostDefinition.Spec
	at := slices.IndexFunc(spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == r.spec.Version })
	namespaced := spec.Scope == apiextensionsv1.NamespaceScoped
	switch {
	case hostDefinition.Name != r.Name() || spec.Group != r.spec.Group || spec.Names.Plural != r.spec.Resource || spec.Names.Kind != r.spec.Kind:
		return nil, fmt.Errorf("the host's definition %s has the kind %s and the resource %s, not %s and %s", hostDefinition.Name, spec.Names.Kind, spec.Names.Plural, r.spec.Kind, r.spec.Resource)
	case at < 0 || !spec.Versions[at].Served:
		return nil, fmt.Errorf("the host's definition %s does not serve the version %s", hostDefinition.Name, r.spec.Version)
	case r.InTenant():
	case r.ToHost() && !namespaced:
		return nil, fmt.Errorf("%s have no namespace: they cannot go ToHost", r.Name())
	case !r.ToHost() && namespaced != (r.spec.Select.Namespace != ""):
		return nil, fmt.Errorf("%s are %s: the rule's select must fit that", r.Name(), strings.ToLower(string(spec.Scope)))
	}
	version := *spec.Versions[at].DeepCopy()
	version.Storage, version.Deprecated, version.DeprecationWarning = true, false, nil
	view := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name(), Annotations: map[string]string{AnnotationView: string(hostDefinition.UID)}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: spec.Group, Names: *spec.Names.DeepCopy(), Scope: spec.Scope,
			Versions:   []apiextensionsv1.CustomResourceDefinitionVersion{version},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter},
		},
	}
	if approved := hostDefinition.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation]; approved != "" {
		view.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation] = approved
	}
	return view, nil
}

// MergeDefinition is the Merge of definitions in a tenant's API. Versions in which
// objects may be stored stay, and are not served.
func MergeDefinition(have, want *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, engine.Difference) {
	merged := have.DeepCopy()
	spec := want.Spec.DeepCopy()
	for _, v := range have.Spec.Versions {
		stored := slices.Contains(have.Status.StoredVersions, v.Name)
		if wanted := slices.ContainsFunc(spec.Versions, func(w apiextensionsv1.CustomResourceDefinitionVersion) bool { return w.Name == v.Name }); stored && !wanted {
			v.Served, v.Storage = false, false
			spec.Versions = append(spec.Versions, v)
		}
	}
	annotations := mergeKeys(merged.Annotations, want.Annotations)
	annotations[AnnotationView] = want.Annotations[AnnotationView]
	if equality.Semantic.DeepEqual(merged.Spec, *spec) && equality.Semantic.DeepEqual(merged.Annotations, annotations) {
		return merged, engine.Same
	}
	merged.Spec, merged.Annotations = *spec, annotations
	return merged, engine.Changed
}

// HasStatus says whether the status of a definition's objects is written by itself.
func (r *Rule) HasStatus(tenantDefinition *apiextensionsv1.CustomResourceDefinition) bool {
	for _, v := range tenantDefinition.Spec.Versions {
		if v.Name == r.spec.Version {
			return v.Subresources != nil && v.Subresources.Status != nil
		}
	}
	return false
}

// Established says whether a definition's objects can be read and written.
func Established(d *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(d.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}
