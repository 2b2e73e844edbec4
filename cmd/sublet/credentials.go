package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/pki"
)

// hostTTL is the lifetime of the host's own credentials. Each start of the server
// writes them anew.
const hostTTL = 365 * 24 * time.Hour

// agentUser is the host user of the agents' fence, DNS and volumes.
const agentUser = "sublet:agent"

// nodeFiles are the credentials of the agent.
type nodeFiles struct {
	kubelet, proxy, agent string // kubeconfigs
	cert, key, ca         string // of the kubelet's port
}

func (d dataDir) nodeFiles() nodeFiles {
	return nodeFiles{
		kubelet: d.path("agent", "node.kubeconfig"), proxy: d.path("agent", "proxy.kubeconfig"), agent: d.path("agent", "agent.kubeconfig"),
		cert: d.path("agent", "pki", "kubelet.crt"), key: d.path("agent", "pki", "kubelet.key"), ca: d.path("agent", "pki", "ca.crt"),
	}
}

// credentials writes what the provider, the cells and the local agent need to
// speak to the host API.
type credentials struct {
	dir       dataDir
	authority *pki.Authority
	server    netip.AddrPort // of the host API
	nodeName  string
	nodeIP    netip.Addr
}

// write writes all but the cells' credentials.
func (c credentials) write() error {
	f := c.dir.nodeFiles()
	kubeconfigs := []struct {
		path, user string
		groups     []string
	}{
		{c.dir.admin(), "sublet:admin", []string{"system:masters"}},
		{f.kubelet, "system:node:" + c.nodeName, []string{"system:nodes"}},
		{f.proxy, "system:kube-proxy", nil},
		{f.agent, agentUser, nil},
	}
	for _, k := range kubeconfigs {
		if err := c.writeKubeconfig(k.path, k.user, k.groups...); err != nil {
			return err
		}
	}
	return c.writeServing(f)
}

// writeCell writes the credentials of one cell.
func (c credentials) writeCell(cell string) error {
	return c.writeKubeconfig(c.dir.cellConfig(cell), tenant.CellUser(cell))
}

func (c credentials) writeKubeconfig(path, user string, groups ...string) error {
	data, err := c.authority.Kubeconfig(pki.KubeconfigOptions{
		Server: "https://" + c.server.String(), User: user, Groups: groups, TTL: hostTTL, ContextName: "sublet-host",
	})
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

// writeServing writes the certificate of the node's kubelet port.
func (c credentials) writeServing(f nodeFiles) error {
	cert, err := c.authority.IssueServing([]string{c.nodeName}, []netip.Addr{c.nodeIP, netip.AddrFrom4([4]byte{127, 0, 0, 1})}, hostTTL)
	if err != nil {
		return err
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the node's key is a %T, not ECDSA", cert.PrivateKey)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the node's key: %w", err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.MkdirAll(filepath.Dir(f.cert), 0o700); err != nil {
		return fmt.Errorf("make the node's directory of keys: %w", err)
	}
	for path, data := range map[string][]byte{
		f.key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.cert: chain, f.ca: c.authority.CAPEM(),
	} {
		if err := writeFile(path, data); err != nil {
			return err
		}
	}
	return nil
}

// agentRights lets the agents' fence and DNS read what they work from, and their
// volumes be found.
func agentRights() []baseline.Object {
	read := []string{"get", "list", "watch"}
	meta := metav1.ObjectMeta{Name: agentUser, Labels: map[string]string{tenant.LabelManagedBy: tenant.ManagedByManager}}
	rbac := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
	}
	return []baseline.Object{
		&rbacv1.ClusterRole{TypeMeta: rbac("ClusterRole"), ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods", "services", "namespaces", "nodes"}, Verbs: read},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
			{APIGroups: []string{"sublet.dev"}, Resources: []string{"virtualclusters"}, Verbs: read},
			// Volumes: upstream's provisioning controller, and how large they are.
			{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"storageclasses"}, Verbs: read},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: append([]string{"create", "update", "patch", "delete"}, read...)},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: append([]string{"update", "patch"}, read...)},
			{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims/status"}, Verbs: []string{"update", "patch"}},
			{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "update", "patch"}},
		}},
		&rbacv1.ClusterRoleBinding{
			TypeMeta: rbac("ClusterRoleBinding"), ObjectMeta: *meta.DeepCopy(),
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: agentUser},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: agentUser}},
		},
	}
}
