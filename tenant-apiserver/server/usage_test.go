package server

import (
	"context"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Who may see a namespace's pods may see what they use, and only there. That there are
// figures at all takes kubelets: test/e2e.
func TestReadersOfPodsReadMetrics(t *testing.T) {
	admin := client(t, w.a.admin(t))
	seen, hidden := namespace(t, admin), namespace(t, admin)
	_, err := admin.RbacV1().RoleBindings(seen).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "viewer"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "viewer"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	viewer := client(t, w.a.as(t, "viewer")).CoreV1().RESTClient()
	path := func(ns string) string { return "/apis/metrics.k8s.io/v1beta1/namespaces/" + ns + "/pods" }
	await(t, "a viewer reads metrics", func(ctx context.Context) (bool, error) {
		return viewer.Get().AbsPath(path(seen)).Do(ctx).Error() == nil, nil
	})
	wantForbidden(t, viewer.Get().AbsPath(path(hidden)).Do(t.Context()).Error(), "metrics.k8s.io")
}
