package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
)

var (
	self   = tenant.Tenant{ID: "t1", Name: "acme", HostNamespace: "sublet-acme-1"}
	name   = tenant.Name{Namespace: "shop", Name: "settings"}
	hostID = string(self.ID.HostName(name))
)

// api is the little of an API that a Mirror sees: it keeps objects, checks
// preconditions, and records what was written.
type api struct {
	objects map[string]*corev1.ConfigMap
	writes  []string
}

var resource = schema.GroupResource{Resource: "configmaps"}

func (a *api) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.ConfigMap, error) {
	if o, ok := a.objects[name]; ok {
		return o, nil
	}
	return nil, apierrors.NewNotFound(resource, name)
}

func (a *api) Create(_ context.Context, o *corev1.ConfigMap, _ metav1.CreateOptions) (*corev1.ConfigMap, error) {
	if _, ok := a.objects[o.Name]; ok {
		return nil, apierrors.NewAlreadyExists(resource, o.Name)
	}
	a.writes = append(a.writes, "create")
	a.objects[o.Name] = o
	return o, nil
}

func (a *api) Update(_ context.Context, o *corev1.ConfigMap, _ metav1.UpdateOptions) (*corev1.ConfigMap, error) {
	a.writes = append(a.writes, "update")
	a.objects[o.Name] = o
	return o, nil
}

func (a *api) Delete(_ context.Context, name string, o metav1.DeleteOptions) error {
	have, ok := a.objects[name]
	switch {
	case !ok:
		return apierrors.NewNotFound(resource, name)
	case o.Preconditions == nil || o.Preconditions.UID == nil:
		return errors.New("a deletion without a UID")
	case *o.Preconditions.UID != have.UID:
		return apierrors.NewConflict(resource, name, errors.New("uid"))
	}
	a.writes = append(a.writes, fmt.Sprintf("delete %s", have.UID))
	delete(a.objects, name)
	return nil
}

// hostMap is a host object that was made for the tenant object with that UID.
func hostMap(owner tenant.ID, uid string, data string) *corev1.ConfigMap {
	l, a := tenant.Owner{Tenant: owner, Name: name, UID: uid}.Marks()
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: self.HostNamespace, Name: hostID, UID: "host-" + types.UID(uid), Labels: l, Annotations: a},
		Data:       map[string]string{"a": data},
	}
}

func deleting(o *corev1.ConfigMap, grace int64) *corev1.ConfigMap {
	o.DeletionTimestamp, o.DeletionGracePeriodSeconds = &metav1.Time{}, &grace
	return o
}

func TestMirrorDecidesByExistenceAndProvesOwnership(t *testing.T) {
	const same, immutable = "same", "immutable"
	tenantMap := func(data string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: "u1"}, Data: map[string]string{"a": data}}
	}
	zero, five := int64(0), int64(5)
	for what, c := range map[string]struct {
		tenant         *corev1.ConfigMap
		cached, live   *corev1.ConfigMap // live: when the cache lags
		gone           *int64            // the tenant's object wants none
		want           string
		fails, foreign bool
	}{
		"neither":                         {},
		"tenant only":                     {tenant: tenantMap(same), want: "[create]"},
		"tenant only, wants none":         {tenant: tenantMap(same), gone: &zero},
		"both, in step":                   {tenant: tenantMap(same), cached: hostMap("t1", "u1", same)},
		"both, out of step":               {tenant: tenantMap("new"), cached: hostMap("t1", "u1", same), want: "[update]"},
		"both, cannot be changed":         {tenant: tenantMap(immutable), cached: hostMap("t1", "u1", same), want: "[delete host-u1]"},
		"both, wants none":                {tenant: tenantMap(same), cached: hostMap("t1", "u1", same), gone: &zero, want: "[delete host-u1]"},
		"both, host is being deleted":     {tenant: tenantMap("new"), cached: deleting(hostMap("t1", "u1", same), 0)},
		"both, of an older tenant object": {tenant: tenantMap(same), cached: hostMap("t1", "u0", same), want: "[delete host-u0]"},
		"host only":                       {cached: hostMap("t1", "u1", same), want: "[delete host-u1]"},
		"host only, being deleted":        {cached: deleting(hostMap("t1", "u1", same), 1)},
		"deleting sooner":                 {tenant: tenantMap(same), cached: deleting(hostMap("t1", "u1", same), 30), gone: &five, want: "[delete host-u1]"},
		"deleting later":                  {tenant: tenantMap(same), cached: deleting(hostMap("t1", "u1", same), 3), gone: &five},
		"another tenant's":                {tenant: tenantMap(same), cached: hostMap("t2", "u1", same), fails: true, foreign: true},
		"another tenant's, host only":     {cached: hostMap("t2", "u1", same), fails: true, foreign: true},
		"unseen, ours":                    {tenant: tenantMap(same), live: hostMap("t1", "u1", same), fails: true},
		"unseen, stale":                   {tenant: tenantMap(same), live: hostMap("t1", "u0", same), want: "[delete host-u0]"},
		"unseen, another's":               {tenant: tenantMap(same), live: hostMap("t2", "u1", same), fails: true, foreign: true},
	} {
		t.Run(what, func(t *testing.T) {
			host := &api{objects: map[string]*corev1.ConfigMap{}}
			store := cache.NewStore(cache.MetaNamespaceKeyFunc)
			if c.cached != nil {
				host.objects[hostID] = c.cached
				if err := store.Add(c.cached); err != nil {
					t.Fatal(err)
				}
			}
			if c.live != nil {
				host.objects[hostID] = c.live
			}
			m := mirror(c.tenant, host, store, c.gone)
			_, err := m.Reconcile(t.Context(), name)
			if (err != nil) != c.fails || errors.Is(err, ErrForeign) != c.foreign {
				t.Fatalf("error %v", err)
			}
			if got := fmt.Sprint(host.writes); got != c.want && !(got == "[]" && c.want == "") {
				t.Errorf("wrote %s, want %s", got, c.want)
			}
		})
	}
}

func mirror(tenantMap *corev1.ConfigMap, host *api, store cache.Store, none *int64) *Mirror[*corev1.ConfigMap, *corev1.ConfigMap] {
	return &Mirror[*corev1.ConfigMap, *corev1.ConfigMap]{
		Name:   "ConfigMap",
		Source: func(tenant.Name) (*corev1.ConfigMap, bool) { return tenantMap, tenantMap != nil },
		Target: Host[*corev1.ConfigMap]{Tenant: self, Cache: store, Read: host, Write: host},
		Want: func(_ context.Context, source, _ *corev1.ConfigMap) (Want[*corev1.ConfigMap], error) {
			if none != nil {
				return Gone[*corev1.ConfigMap](none), nil
			}
			want := hostMap(self.ID, string(source.UID), "")
			want.Data = source.Data
			return Be(want), nil
		},
		Merge: func(have, want *corev1.ConfigMap) (*corev1.ConfigMap, Difference) {
			merged := have.DeepCopy()
			merged.Data = want.Data
			switch {
			case want.Data["a"] == "immutable":
				return merged, Immutable
			case maps.Equal(have.Data, want.Data):
				return merged, Same
			}
			return merged, Changed
		},
	}
}

// TestDeletionSparesANewcomer: an object that took the name after the cache was
// read is not deleted.
func TestDeletionSparesANewcomer(t *testing.T) {
	host := &api{objects: map[string]*corev1.ConfigMap{hostID: hostMap("t1", "u2", "new")}}
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	if err := store.Add(hostMap("t1", "u1", "old")); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror(nil, host, store, nil).Reconcile(t.Context(), name); !apierrors.IsConflict(err) {
		t.Errorf("error %v, want a conflict", err)
	}
	if len(host.writes) > 0 {
		t.Errorf("wrote %v", host.writes)
	}
}

// TestWhatWasMadeIsExpected: while the cache does not show what was made for an object, it
// is not made again; it is when patience is over and it is not there, for a successor of
// the object, and when it had been seen.
func TestWhatWasMadeIsExpected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &api{objects: map[string]*corev1.ConfigMap{}}
		store := cache.NewStore(cache.MetaNamespaceKeyFunc)
		source := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: "u1"}}
		m := mirror(source, host, store, nil)
		pass := func(want ...string) (again time.Duration) {
			t.Helper()
			host.writes = nil
			again, err := m.Reconcile(t.Context(), name)
			if err != nil || !slices.Equal(host.writes, want) {
				t.Fatalf("wrote %v, error %v; want %v", host.writes, err, want)
			}
			return again
		}
		unseen := func(want bool) {
			t.Helper()
			if got := m.Unseen(name); got != want {
				t.Errorf("unseen: %v", got)
			}
		}
		unseen(false)
		pass("create")
		unseen(true)
		again := pass()
		if again != patience {
			t.Errorf("looks again in %s", again)
		}
		clear(host.objects)
		<-time.After(again)
		unseen(false)
		pass("create")
		source.UID = "u2"
		pass("delete host-u1") // what its predecessor has there is refused, and read
		pass("create")
		if err := store.Add(host.objects[hostID]); err != nil {
			t.Fatal(err)
		}
		unseen(false)
		if again := pass(); again != 0 {
			t.Errorf("looks again in %s for what was seen", again)
		}
		if err := store.Delete(host.objects[hostID]); err != nil {
			t.Fatal(err)
		}
		clear(host.objects)
		pass("create")
		m.Source = func(tenant.Name) (*corev1.ConfigMap, bool) { return nil, false }
		pass()
		if n := len(m.unseen.made); n != 0 {
			t.Errorf("%d left behind", n)
		}
	})
}
