package kube

import (
	"errors"
	"fmt"
	_ "unsafe" // for go:linkname

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// The definitions from which documents of custom resources are built, of the
// whole process: all instances build from these, at any time.
//
//go:linkname definitions k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder.definitions
var definitions map[string]common.OpenAPIDefinition

//go:linkname definitionsV3 k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder.definitionsV3
var definitionsV3 map[string]common.OpenAPIDefinition

// unshareDefinitions makes building documents of custom resources safe for
// several control planes. kube-openapi deletes a key from the extensions of
// every definition it uses. On a map that is not empty Go takes that for a
// write, and two tenants who change custom resources in the same moment would
// end the process, which no recover can prevent. Of the definitions used, few
// have extensions; they lose them (x-kubernetes-map-type of owner references
// inside custom resources).
func unshareDefinitions() error {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	crd.Spec.Group = "sublet.internal"
	crd.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: "checks", Singular: "check", Kind: "Check"}
	crd.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{
		OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"},
	}}}
	// Upstream makes the definitions at the first use.
	if _, err := builder.BuildOpenAPIV3(crd, "v1", builder.Options{}); err != nil {
		return fmt.Errorf("build OpenAPI of a custom resource: %w", err)
	}
	for _, shared := range []map[string]common.OpenAPIDefinition{definitions, definitionsV3} {
		if len(shared) == 0 {
			return errors.New("the definitions of custom resources are not where they were in Kubernetes " + Version + ": review internal/kube")
		}
		for name, d := range shared {
			d.Schema.Extensions = spec.Extensions(nil)
			shared[name] = d
		}
	}
	return nil
}
