package translate

import (
	"net/netip"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hiddenAddress stands for an address that is none of the tenant's business.
const hiddenAddress = "(an address of the node's network)"

// socketAddress is an address with a port, as Go's errors of the network have them:
// "read udp 192.0.2.1:40000->192.0.2.53:53: i/o timeout".
var socketAddress = regexp.MustCompile(`(?:\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-fA-F:.]+(?:%[^\]\s]+)?\]):[0-9]{1,5}\b`)

// probeTexts are the reasons of events with what the tenant's own program answered.
var probeTexts = map[string]bool{"Unhealthy": true, "ProbeWarning": true, "FailedPostStartHook": true, "FailedPreStopHook": true}

// hideAddresses takes from a text of the host whom the node talked to: its resolvers,
// its own addresses, where a registry is. Addresses of the pod stay, and what the
// tenant wrote itself.
func (r Reveal) hideAddresses(hostText string) string {
	return socketAddress.ReplaceAllStringFunc(hostText, func(found string) string {
		at, err := netip.ParseAddrPort(found)
		if err == nil && (at.Addr().IsLoopback() || r.addresses[at.Addr().Unmap()]) || strings.Contains(r.images, found) {
			return found
		}
		return hiddenAddress
	})
}

// addressesOf are the addresses of a pod.
func addressesOf(pod *corev1.Pod) map[netip.Addr]bool {
	addresses := map[netip.Addr]bool{}
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			addresses[a.Unmap()] = true
		}
	}
	return addresses
}

// imagesOf are the images of a pod, which may name registries by their addresses.
func imagesOf(pod *corev1.Pod) string {
	var images []string
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			images = append(images, c.Image)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		images = append(images, c.Image)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil {
			images = append(images, v.Image.Reference)
		}
	}
	return strings.Join(images, " ")
}
