package manager

import (
	"maps"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/api/v1alpha1"
)

func sitting(uid types.UID, slice, cell string) v1alpha1.VirtualCluster {
	vc := v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{UID: uid, Name: "n-" + string(uid)}}
	vc.Status.ServiceCIDR, vc.Status.Cell = slice, cell
	return vc
}

// TestSeats: what a cache does not show yet is not given twice, and what it shows is
// believed.
func TestSeats(t *testing.T) {
	s := seats{map[types.UID]seat{}, map[types.UID]bool{}}
	fresh, placed, moved := sitting("a", "", ""), sitting("a", "s1", "cell-0"), sitting("a", "s1", "cell-1")
	other := sitting("b", "s2", "cell-0")
	want := func(what string, cached []v1alpha1.VirtualCluster, want map[types.UID]seat) {
		t.Helper()
		got := s.merge(cached)
		if !maps.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	b := seatOf(&other)
	want("nothing was changed", []v1alpha1.VirtualCluster{fresh, other}, map[types.UID]seat{"a": {tenant: "n-a"}, "b": b})
	s.take(&placed)
	want("the cache shows nothing of a", []v1alpha1.VirtualCluster{other}, map[types.UID]seat{"a": seatOf(&placed), "b": b})
	want("the cache is behind", []v1alpha1.VirtualCluster{fresh, other}, map[types.UID]seat{"a": seatOf(&placed), "b": b})
	want("the cache shows it", []v1alpha1.VirtualCluster{placed, other}, map[types.UID]seat{"a": seatOf(&placed), "b": b})
	if len(s.taken) > 0 {
		t.Errorf("kept: %+v", s.taken)
	}
	s.take(&moved)
	want("it was moved", []v1alpha1.VirtualCluster{placed}, map[types.UID]seat{"a": seatOf(&moved)})
	s.leave("a")
	gone := seatOf(&moved)
	gone.cell = ""
	want("it left, and is still seen", []v1alpha1.VirtualCluster{moved, other}, map[types.UID]seat{"a": gone, "b": b})
	want("it is gone", []v1alpha1.VirtualCluster{other}, map[types.UID]seat{"b": b})
	if len(s.left) > 0 {
		t.Errorf("kept: %+v", s.left)
	}
	s.take(&placed)
	s.vanished("n-a")
	want("it was removed by force", []v1alpha1.VirtualCluster{other}, map[types.UID]seat{"b": b})
}
