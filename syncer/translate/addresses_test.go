package translate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// What a node says of its network is not told; what is the tenant's own is.
func TestAddressesOfTheNodeAreHidden(t *testing.T) {
	tenantPod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "192.0.2.80:5000/app:1"}}}}
	hostPod := &corev1.Pod{Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}, {IP: "fd00::7"}}}}
	r := Translation{}.Reveal(tenantPod, hostPod)
	for text, want := range map[string]string{
		"lookup registry.example on 10.255.255.53:53: read udp 198.51.100.152:46378->10.255.255.53:53: i/o timeout": "lookup registry.example on " + hiddenAddress +
			": read udp " + hiddenAddress + "->" + hiddenAddress + ": i/o timeout",
		"dial tcp [2001:db8::1]:443: connect: connection refused":                     "dial tcp " + hiddenAddress + ": connect: connection refused",
		"dial tcp [fe80::1%eth0]:443: connect: no route":                              "dial tcp " + hiddenAddress + ": connect: no route",
		"Get \"http://10.244.0.7:8080/\": dial tcp 10.244.0.7:8080: refused":          "Get \"http://10.244.0.7:8080/\": dial tcp 10.244.0.7:8080: refused",
		"dial tcp [fd00::7]:80: refused":                                              "dial tcp [fd00::7]:80: refused",
		"dial tcp 127.0.0.1:9376: refused":                                            "dial tcp 127.0.0.1:9376: refused",
		"Failed to pull image \"192.0.2.80:5000/app:1\": dial tcp 192.0.2.81:5000: x": "Failed to pull image \"192.0.2.80:5000/app:1\": dial tcp " + hiddenAddress + ": x",
		"image app:1.2.3.4 has 12:34 layers":                                          "image app:1.2.3.4 has 12:34 layers",
		"":                                                                            "",
	} {
		if got := r.Text(text); got != want {
			t.Errorf("%q\nis told as %q\nwant       %q", text, got, want)
		}
	}
}

// What a driver of the host's says of its storage is told without the host's names.
func TestDriversTextsAreMasked(t *testing.T) {
	const own, other = "3b0c7a51-0000-4000-8000-000000000001", "9C1B0A8E-0000-4000-8000-000000000002"
	tr := Translation{Tenant: testTenant}
	nodes := []string{"worker-7", "a"}
	for text, want := range map[string]string{
		"rpc error: code = Internal desc = snapshot snapcontent-" + own + " of pvc-" + other: "rpc error: code = Internal desc = snapshot snapcontent-" + own + " of pvc-" + hiddenIdentifier,
		"no answer of 192.0.2.7, nor of 192.0.2.8:3260.":                                     "no answer of " + hiddenAddress + ", nor of " + hiddenAddress + ".",
		"dial tcp [2001:db8::7]:443 from 2001:db8::8 and [::ffff:192.0.2.1]":                 "dial tcp " + hiddenAddress + " from " + hiddenAddress + " and " + hiddenAddress,
		"attach on worker-7 failed, not on worker-70; a node":                                "attach on " + testTenant.ID.NodeName("worker-7") + " failed, not on worker-70; " + testTenant.ID.NodeName("a") + " node",
		"at 12:34:56 the 1.2.3 release had no space left: code=8":                            "at 12:34:56 the 1.2.3 release had no space left: code=8",
	} {
		if got := tr.HideHost(text, own, nodes); got != want {
			t.Errorf("%q\nis told as %q\nwant       %q", text, got, want)
		}
	}
}
