package translate

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
		if err == nil && (at.Addr().IsLoopback() || hasAddress(r.hostPod, at.Addr().Unmap())) || strings.Contains(r.images(), found) {
			return found
		}
		return hiddenAddress
	})
}

// hiddenIdentifier stands for an identifier that is none of the tenant's business.
const hiddenIdentifier = "(an identifier of the host)"

var (
	anyV4      = regexp.MustCompile(`(?:\[?::(?:[fF]{4}:)?)?(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:\]?:[0-9]{1,5}\b|\])?`)
	anyV6      = regexp.MustCompile(`\[?[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7}(?:%[0-9a-zA-Z]+)?(?:\]:[0-9]{1,5}\b|\])?`)
	identifier = regexp.MustCompile(`(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// HideHost takes from a text that a driver of the host's wrote what says where the host
// keeps things: addresses, names of nodes, and identifiers but that of the tenant's own
// object.
func (t Translation) HideHost(hostText string, own types.UID, hostNodes []string) string {
	text := identifier.ReplaceAllStringFunc(hostText, func(found string) string {
		if found == string(own) {
			return found
		}
		return hiddenIdentifier
	})
	text = anyV4.ReplaceAllLiteralString(text, hiddenAddress)
	text = anyV6.ReplaceAllStringFunc(text, func(found string) string {
		_, err := netip.ParseAddr(strings.Trim(found, "[]"))
		if _, withPort := netip.ParseAddrPort(found); err != nil && withPort != nil {
			return found
		}
		return hiddenAddress
	})
	for _, node := range hostNodes {
		text = replaceWord(text, node, t.Tenant.ID.NodeName(node))
	}
	return text
}

// hasAddress says whether an address is one of the pod's, which may be nil.
func hasAddress(pod *corev1.Pod, address netip.Addr) bool {
	return pod != nil && slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool {
		a, err := netip.ParseAddr(ip.IP)
		return err == nil && a.Unmap() == address
	})
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
