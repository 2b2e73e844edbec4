package server

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A tenant writes what its pods' and nodes' addresses are; the proxy reaches its
// pods all the same, and nothing else.
func TestProxySubresources(t *testing.T) {
	o := newOutside(t, "proxies", hooks())
	o.expose(t)
	pods := o.k.CoreV1().Pods(o.ns)
	made, err := pods.Create(t.Context(), pod("p"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at := func(address string) {
		t.Helper()
		made.Status.PodIP, made.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
		if made, err = pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	get := func(resource, name string) (string, error) {
		raw, err := o.k.CoreV1().RESTClient().Get().Namespace(o.ns).Resource(resource).Name(name).SubResource("proxy").Suffix("hello").Do(t.Context()).Raw()
		return string(raw), err
	}
	at(ownPod)
	if got, err := get("pods", fmt.Sprintf("https:p:%d", o.own.port)); err != nil || got != "pod /hello" {
		t.Errorf("a pod answers %q, %v", got, err)
	}
	await(t, "the service's endpoint", func(context.Context) (bool, error) {
		got, err := get("services", "https:app:https")
		return err == nil && got == "pod /hello", nil // 503 until the slice is known
	})
	_, apiPort, err := net.SplitHostPort(w.host.addr)
	if err != nil {
		t.Fatal(err)
	}
	for what, place := range map[string][2]string{
		"another tenant's pod": {otherPod, fmt.Sprint(o.other.port)}, "metadata": {"169.254.169.254", "80"},
		"the host's API": {"127.0.0.1", apiPort}, "a private network": {"10.0.0.1", "80"},
	} {
		at(place[0])
		got, err := get("pods", "https:p:"+place[1])
		// Link-local and loopback addresses are refused by upstream, before the dialer.
		if err == nil || !strings.Contains(got, "refused") && !strings.Contains(got, "address not allowed") {
			t.Errorf("%s answers %q, %v", what, got, err)
		}
	}
	at(otherPod)
	o.lead(t, otherPod, o.other.port)
	await(t, "the service's new endpoint", func(context.Context) (bool, error) {
		got, err := get("services", "https:app:https")
		return err != nil && strings.Contains(got, "refused"), nil
	})
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: otherPod}}},
	}
	if _, err := o.k.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.k.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Log(err) // the address may have been written at once
	}
	answer, err := o.k.CoreV1().RESTClient().Get().Resource("nodes").Name(fmt.Sprintf("https:n:%d", o.other.port)).SubResource("proxy").Do(t.Context()).Raw()
	if err == nil || !strings.Contains(string(answer), "refused") {
		t.Errorf("a node's proxy: %s, %v", answer, err)
	}
	o.untouched(t)
}
