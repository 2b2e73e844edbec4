package server

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// await waits until ok says so; it gives up only when the test's time is over.
func await(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// namespace makes one for the test, with its service account, and deletes it
// afterwards.
func namespace(t *testing.T, k kubernetes.Interface) string {
	t.Helper()
	ns, err := k.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := k.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	await(t, "service account of "+ns.Name, func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	return ns.Name
}

func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// conflictIsRetry makes a conflict a reason to try again.
func conflictIsRetry(err error) (bool, error) {
	if apierrors.IsConflict(err) {
		return false, nil
	}
	return err == nil, err
}

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

func pod(name string, change ...func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image"}}},
	}
	for _, f := range change {
		f(&p.Spec)
	}
	return p
}

// wantForbidden wants err to be a 403 whose text contains all of texts.
func wantForbidden(t *testing.T, err error, texts ...string) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Fatalf("error %v, want 403", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}
