package server

import (
	"errors"
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// inStore does something with a store that is closed.
func inStore(t *testing.T, c Config, do func(*storage) error) {
	t.Helper()
	st, err := openStorage(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(st), st.close()); err != nil {
		t.Fatal(err)
	}
}

// ofVersion makes a closed store that of another version of Kubernetes.
func ofVersion(t *testing.T, c Config, version string) {
	t.Helper()
	inStore(t, c, func(st *storage) error {
		sealed, err := st.seal(t.Context(), bootstrapKey, []byte(version))
		if err == nil {
			_, err = st.client().KV.Put(t.Context(), bootstrapKey, sealed)
		}
		return err
	})
}

// The bootstrap objects that spoil takes away or changes, and one that stays changed,
// because its owner has said so.
const (
	spoiledRole, keptRole = "system:basic-user", "system:discovery"
	spoiledSchema         = "service-accounts"
	spoiledClass          = "system-node-critical"
)

// spoil starts a control plane and stops it, and leaves bootstrap objects that are as
// none of this version's.
func spoil(t *testing.T, c Config) {
	t.Helper()
	s := start(t, c)
	defer inStore(t, c, func(st *storage) error { // nobody can remove it by a request
		r, err := st.client().KV.Delete(t.Context(), "/registry/priorityclasses/"+spoiledClass)
		if err == nil && r.Deleted != 1 {
			err = fmt.Errorf("there is no %s", spoiledClass)
		}
		return err
	})
	defer stop(t, s)
	k := client(t, s.Loopback())
	for _, name := range []string{spoiledRole, keptRole} {
		role, err := k.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		role.Rules = nil
		if name == keptRole {
			role.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false"
		}
		if _, err := k.RbacV1().ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.FlowcontrolV1().FlowSchemas().Delete(t.Context(), spoiledSchema, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// spoiled counts which of them are still so; the role that is to be kept is not
// counted, and must be as it was left.
func spoiled(t *testing.T, k kubernetes.Interface) (n int) {
	t.Helper()
	for _, name := range []string{spoiledRole, keptRole} {
		role, err := k.RbacV1().ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case name == keptRole && len(role.Rules) > 0:
			t.Error("a role whose owner does not want it was reconciled")
		case name == spoiledRole && len(role.Rules) == 0:
			n++
		}
	}
	for _, err := range []error{
		k.FlowcontrolV1().RESTClient().Get().Resource("flowschemas").Name(spoiledSchema).Do(t.Context()).Error(),
		k.SchedulingV1().RESTClient().Get().Resource("priorityclasses").Name(spoiledClass).Do(t.Context()).Error(),
	} {
		if there, err := found(err); err != nil {
			t.Fatal(err)
		} else if !there {
			n++
		}
	}
	return n
}

// The first start with another version of Kubernetes reconciles what comes with it:
// roles, flow schemas, priority classes. No start before or after does.
func TestBootstrapAfterAnUpgrade(t *testing.T) {
	c := scratch(t, "upgraded", 61)
	again := func(want int, when string) {
		t.Helper()
		s := start(t, c)
		defer stop(t, s)
		k := client(t, s.Loopback())
		if n := spoiled(t, k); n != want {
			t.Errorf("%s: %d of the bootstrap objects are not as they come, want %d", when, n, want)
		}
	}
	spoil(t, c)
	again(3, "the same version")
	ofVersion(t, c, "v1.36.0")
	again(0, "another version")
	spoil(t, c)
	again(3, "the version after the upgrade, again")
}
