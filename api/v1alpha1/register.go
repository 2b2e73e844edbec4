package v1alpha1

import (
	_ "embed" // for the manifests

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:generate go tool controller-gen object paths=. crd output:crd:dir=.

// GroupVersion is the group and version of the objects in this package.
var GroupVersion = schema.GroupVersion{Group: "sublet.dev", Version: "v1alpha1"}

// VirtualClusterManifest is the CustomResourceDefinition of VirtualCluster as
// YAML. It is generated from the type; callers must not change it.
//
//go:embed sublet.dev_virtualclusters.yaml
var VirtualClusterManifest []byte

// PlanManifest is that of Plan.
//
//go:embed sublet.dev_plans.yaml
var PlanManifest []byte

// CredentialManifest is that of Credential.
//
//go:embed sublet.dev_credentials.yaml
var CredentialManifest []byte

// Manifests are the CustomResourceDefinitions of all kinds.
func Manifests() [][]byte { return [][]byte{VirtualClusterManifest, PlanManifest, CredentialManifest} }

// AddToScheme makes the package's types known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &VirtualCluster{}, &VirtualClusterList{}, &Plan{}, &PlanList{}, &Credential{}, &CredentialList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
