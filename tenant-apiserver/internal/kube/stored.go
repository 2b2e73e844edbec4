package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// storedDecoder turns what the storage holds into objects of one version, with their
// defaults. The storage may have another version, and for events another group.
type storedDecoder struct{ version schema.GroupVersion }

var _ runtime.Decoder = storedDecoder{}

// Decode implements runtime.Decoder; into is not used.
func (d storedDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, _ runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, kind, err := legacyscheme.Codecs.UniversalDeserializer().Decode(data, defaults, nil)
	if err != nil {
		return nil, kind, err
	}
	if kind.GroupVersion() == d.version {
		legacyscheme.Scheme.Default(obj)
		return obj, kind, nil
	}
	// Versions are converted into each other by way of the internal one.
	if obj, kind, err = legacyscheme.Codecs.UniversalDecoder().Decode(data, defaults, nil); err != nil {
		return nil, kind, err
	}
	converted, err := legacyscheme.Scheme.ConvertToVersion(obj, d.version)
	if err != nil {
		return nil, kind, fmt.Errorf("convert %s to %s: %w", kind, d.version, err)
	}
	return converted, kind, nil
}
