package translate

import (
	"cmp"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// Reveal gives texts that the host wrote about a pod (messages of conditions,
// containers, events, answers of the kubelet) the tenant's names: of the pod, its
// namespace, its node, and of whatever the pod refers to. hostPod may be nil when
// the text is about its creation.
type Reveal struct {
	tenantPod, hostPod *corev1.Pod
	hostNode, node     string                   // "" when the pod has none
	replacer           func() *strings.Replacer // made for the first text: most pods that run have none
	places             func() map[string]string // the tenant's names of the host's nodes, while it has none
	images             func() string            // the tenant's pod's, read for the first address
}

// Reveal returns the replacement of names for a pod. It reads the pods, which must not
// change, until it is used no more.
func (t Translation) Reveal(tenantPod, hostPod *corev1.Pod) Reveal {
	r := Reveal{tenantPod: tenantPod, hostPod: hostPod, places: func() map[string]string { return nil }}
	r.images = sync.OnceValue(func() string { return imagesOf(tenantPod) })
	if hostPod != nil && hostPod.Spec.NodeName != "" {
		r.hostNode, r.node = hostPod.Spec.NodeName, t.Tenant.ID.NodeName(hostPod.Spec.NodeName)
	} else if hostPod != nil {
		r.places = sync.OnceValue(t.places)
	}
	r.replacer = sync.OnceValue(func() *strings.Replacer { return strings.NewReplacer(t.pairs(r)...) })
	return r
}

// pairs are the host's names, each with the tenant's after it.
func (t Translation) pairs(r Reveal) []string {
	tenantPod, namespace := r.tenantPod, r.tenantPod.Namespace
	pairs := []string{
		t.hostName(namespace, tenantPod.Name), tenantPod.Name,
		t.hostName(namespace, tenantPod.Name+SuffixTokens), "token of " + tenantPod.Spec.ServiceAccountName,
		t.hostName(namespace, tenantPod.Name+SuffixNode), "node of " + tenantPod.Name,
		t.hostName(namespace, tenantPod.Name+SuffixCertificates), "certificates of " + tenantPod.Name,
	}
	configMaps, secrets := References(tenantPod)
	for _, name := range append(configMaps, secrets...) {
		pairs = append(pairs, t.hostName(namespace, name), name)
	}
	for _, a := range AnchorsOf(tenantPod) {
		pairs = append(pairs, t.hostName("", a.Name), "trust anchors of "+cmp.Or(a.bundle, a.signer))
	}
	for _, c := range Claims(tenantPod) {
		pairs = append(pairs, t.hostName(namespace, c.Name), c.Name)
	}
	pairs = append(pairs, t.Tenant.HostNamespace, namespace)
	if r.hostPod != nil {
		pairs = append(pairs, string(r.hostPod.UID), string(tenantPod.UID))
	}
	if r.node != "" && r.hostPod.Status.HostIP != "" {
		pairs = append(pairs, r.hostPod.Status.HostIP, NodeAddress(r.node))
	}
	return pairs
}

// places are the tenant's names of the host nodes that it sees, by the host's: the
// scheduler may say of a pod where there would be room for it.
func (t Translation) places() map[string]string {
	if t.Lookup == nil {
		return nil
	}
	names := map[string]string{}
	for _, view := range t.Lookup.TenantNodes() {
		if hostNode, ok := t.Lookup.HostNode(view.Name); ok {
			names[hostNode.Name] = view.Name
		}
	}
	return names
}

// Text returns a text with the tenant's names, and without addresses of the node's
// network.
func (r Reveal) Text(hostText string) string {
	if hostText == "" {
		return ""
	}
	return r.names(r.hideAddresses(hostText))
}

// names returns a text with the tenant's names.
func (r Reveal) names(hostText string) string {
	if hostText == "" {
		return ""
	}
	text := replaceWord(r.replacer().Replace(hostText), r.hostNode, r.node)
	for hostNode, view := range r.places() {
		text = replaceWord(text, hostNode, view)
	}
	return text
}

// replaceWord replaces a name where it stands as a whole: a node may be called
// "a".
func replaceWord(text, word, by string) string {
	if word == "" {
		return text
	}
	var b strings.Builder
	for {
		i := strings.Index(text, word)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := i + len(word)
		whole := (i == 0 || !inName(text[i-1])) && (end == len(text) || !inName(text[end]))
		b.WriteString(text[:i])
		if whole {
			b.WriteString(by)
		} else {
			b.WriteString(word)
		}
		text = text[end:]
	}
}

// inName says whether c can stand inside a name; a dot may also end a sentence.
func inName(c byte) bool {
	return c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
