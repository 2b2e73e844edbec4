package pki

import (
	"fmt"
	"net/url"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// KubeconfigOptions says who a kubeconfig is for and where it leads.
type KubeconfigOptions struct {
	Server        string        // URL of the API, https only
	TLSServerName string        // name to ask for and to verify instead of the URL's host; "" = the URL's host
	User          string        // Kubernetes user name
	Groups        []string      // Kubernetes groups
	TTL           time.Duration // lifetime of the embedded certificate; 0 = DefaultClientTTL
	ContextName   string        // name of context and cluster; "" = User
}

// Kubeconfig writes a kubeconfig with a fresh client certificate and the CA
// embedded. The result holds a private key.
func (a *Authority) Kubeconfig(k KubeconfigOptions) ([]byte, error) {
	certPEM, keyPEM, err := a.IssueClient(k.User, k.Groups, k.TTL)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return k.Write(a.CAPEM(), certPEM, keyPEM)
}

// Write writes a kubeconfig with the given CAs, client certificate and key, all
// PEM-encoded. Groups and TTL are not looked at.
func (k KubeconfigOptions) Write(caPEM, certPEM, keyPEM []byte) ([]byte, error) {
	server, err := url.Parse(k.Server)
	if err != nil || server.Scheme != "https" || server.Host == "" {
		return nil, fmt.Errorf("kubeconfig: server %q is not an https URL", k.Server)
	}
	name := k.ContextName
	if name == "" {
		name = k.User
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   k.Server,
		TLSServerName:            k.TLSServerName,
		CertificateAuthorityData: caPEM,
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: certPEM,
		ClientKeyData:         keyPEM,
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return data, nil
}
