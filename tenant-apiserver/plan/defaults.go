package plan

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// or returns v, or the default when v is the zero value.
func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

func duration(d *metav1.Duration, byDefault time.Duration) time.Duration {
	if d == nil {
		return byDefault
	}
	return d.Duration
}

func amount(q *resource.Quantity, byDefault string) int64 {
	if q == nil {
		d := resource.MustParse(byDefault)
		q = &d
	}
	return q.Value()
}

// classes returns the storage classes of a plan; one that does not say has the
// default, and one with an empty list has none.
func classes(names []string) []string {
	if names == nil {
		return []string{"local"}
	}
	return slices.Clone(names)
}
