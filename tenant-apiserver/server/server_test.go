package server

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReady(t *testing.T) {
	for _, m := range []*member{w.host, w.a, w.b} {
		if err := m.server.Ready(); err != nil {
			t.Error(m.name, err)
		}
	}
}

func TestVersion(t *testing.T) {
	v, err := client(t, w.a.admin(t)).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if v.GitVersion != "v1.37.1" {
		t.Errorf("version %s", v.GitVersion)
	}
}

func TestHostSchedulesAndAllocatesPodRanges(t *testing.T) {
	k := client(t, w.host.admin(t))
	node, err := k.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	many := corev1.ResourceList{corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("8Gi"), corev1.ResourcePods: quantity("110")}
	node.Status = corev1.NodeStatus{Capacity: many, Allocatable: many, Conditions: []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}}
	await(t, "node status", func(ctx context.Context) (bool, error) {
		current, err := k.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		current.Status = node.Status
		_, err = k.CoreV1().Nodes().UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return conflictIsRetry(err)
	})
	await(t, "pod range", func(ctx context.Context) (bool, error) {
		n, err := k.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		return err == nil && n.Spec.PodCIDR == "10.244.0.0/24", err
	})
	ns := namespace(t, k)
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), deployment("web", 1), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "scheduled", func(ctx context.Context) (bool, error) {
		pods, err := k.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 1 && pods.Items[0].Spec.NodeName == "n1", err
	})
}

// A node's identity may touch what is on the node only.
func TestHostRestrictsNodes(t *testing.T) {
	k := client(t, w.host.admin(t))
	ns := namespace(t, k)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	node := client(t, w.host.as(t, "system:node:n9", "system:nodes"))
	_, err := node.CoreV1().Secrets(ns).Get(t.Context(), "s", metav1.GetOptions{})
	wantForbidden(t, err, "no relationship found between node")
	_, err = node.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n8"}}, metav1.CreateOptions{})
	wantForbidden(t, err, `node "n9" is not allowed to modify node "n8"`)
}
