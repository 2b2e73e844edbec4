// Package site has the kind that the operator of test/images/operator reconciles, in
// the two versions that it is served in: v1 is stored, v1beta1 names its fields
// otherwise. Both say the same, so nothing is lost from one to the other and back.
//
// The CustomResourceDefinition is with the tests (test/stories/testdata).
package site

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"
)

// Group is the API group; Kind the kind in it.
const (
	Group = "sites.example.com"
	Kind  = "Site"
)

// V1 and V1beta1 are the versions.
var (
	V1      = schema.GroupVersion{Group: Group, Version: "v1"}
	V1beta1 = schema.GroupVersion{Group: Group, Version: "v1beta1"}
)

// AddToScheme makes both versions known.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypeWithName(V1.WithKind(Kind), &Site{})
	s.AddKnownTypeWithName(V1.WithKind(Kind+"List"), &SiteList{})
	s.AddKnownTypeWithName(V1beta1.WithKind(Kind), &SiteV1beta1{})
	metav1.AddToGroupVersion(s, V1)
	metav1.AddToGroupVersion(s, V1beta1)
	return nil
}

// Site asks for so many pods that serve.
type Site struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   Spec   `json:"spec,omitempty"`
	Status Status `json:"status,omitempty"`
}

// Spec is what is asked for.
type Spec struct {
	Greeting string `json:"greeting,omitempty"` // empty: the webhook sets one
	Replicas int32  `json:"replicas,omitempty"`
}

// Status is what there is.
type Status struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	Available          int32 `json:"available"`
}

// SiteList is a list of Sites.
type SiteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Site `json:"items"`
}

// SiteV1beta1 is a Site as version v1beta1 has it.
type SiteV1beta1 struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SpecV1beta1 `json:"spec,omitempty"`
	Status Status      `json:"status,omitempty"`
}

// SpecV1beta1 is a Spec as version v1beta1 has it.
type SpecV1beta1 struct {
	Text   string `json:"text,omitempty"`
	Copies int32  `json:"copies,omitempty"`
}

// Hub implements conversion.Hub: all conversions lead to v1.
func (*Site) Hub() {}

// ConvertTo implements conversion.Convertible.
func (s *SiteV1beta1) ConvertTo(hub conversion.Hub) error {
	to, ok := hub.(*Site)
	if !ok {
		return fmt.Errorf("%T is no Site", hub)
	}
	to.ObjectMeta, to.Status = s.ObjectMeta, s.Status
	to.Spec = Spec{Greeting: s.Spec.Text, Replicas: s.Spec.Copies}
	return nil
}

// ConvertFrom implements conversion.Convertible.
func (s *SiteV1beta1) ConvertFrom(hub conversion.Hub) error {
	from, ok := hub.(*Site)
	if !ok {
		return fmt.Errorf("%T is no Site", hub)
	}
	s.ObjectMeta, s.Status = from.ObjectMeta, from.Status
	s.Spec = SpecV1beta1{Text: from.Spec.Greeting, Copies: from.Spec.Replicas}
	return nil
}

// DeepCopyObject implements runtime.Object.
func (s *Site) DeepCopyObject() runtime.Object {
	out := *s
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (s *SiteV1beta1) DeepCopyObject() runtime.Object {
	out := *s
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *SiteList) DeepCopyObject() runtime.Object {
	out := &SiteList{TypeMeta: l.TypeMeta, Items: make([]Site, len(l.Items))}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items[i] = l.Items[i]
		l.Items[i].ObjectMeta.DeepCopyInto(&out.Items[i].ObjectMeta)
	}
	return out
}
