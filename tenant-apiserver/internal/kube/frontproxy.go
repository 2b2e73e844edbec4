package kube

import (
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/kubernetes/pkg/controlplane/controller/clusterauthenticationtrust"

	"sublet.dev/tenant-apiserver/pki"
)

// frontProxyUser is who the API server is to the servers behind it.
const frontProxyUser = "front-proxy-client"

// frontProxyTTL is longer than any process runs.
const frontProxyTTL = 10 * 365 * 24 * time.Hour

// frontProxyName is the name of the authority for that.
const frontProxyName = "sublet-front-proxy"

// frontProxy is how aggregated API servers know that a request comes from this API
// server and has the headers that say for whom. It has an authority of its own, as
// upstream asks for: a client certificate of the tenant's authority, whatever name
// is in it, does not make anybody a front proxy.
type frontProxy struct {
	ca              dynamiccertificates.CAContentProvider
	certPEM, keyPEM []byte
}

// newFrontProxy derives the authority from that of the control plane: it is the same at
// every start, as the servers behind know it, and there is nothing to keep. The
// certificate is new each time, as old as the process at most.
func newFrontProxy(of *pki.Authority) (*frontProxy, error) {
	authority, err := of.Derive(frontProxyName)
	if err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	f := &frontProxy{}
	if f.ca, err = dynamiccertificates.NewStaticCAContent("front-proxy-ca", authority.CAPEM()); err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	if f.certPEM, f.keyPEM, err = authority.IssueClient(frontProxyUser, nil, frontProxyTTL); err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	return f, nil
}

// credentials are those of the API server as a client of the servers behind it.
func (f *frontProxy) credentials() (certPEM, keyPEM []byte) { return f.certPEM, f.keyPEM }

// trust is what the ConfigMap kube-system/extension-apiserver-authentication tells
// aggregated API servers.
func (f *frontProxy) trust(clientCA dynamiccertificates.CAContentProvider) clusterauthenticationtrust.ClusterAuthenticationInfo {
	return clusterauthenticationtrust.ClusterAuthenticationInfo{
		ClientCA:                         clientCA,
		RequestHeaderCA:                  f.ca,
		RequestHeaderAllowedNames:        headerrequest.StaticStringSlice{frontProxyUser},
		RequestHeaderUsernameHeaders:     headerrequest.StaticStringSlice{"X-Remote-User"},
		RequestHeaderUIDHeaders:          headerrequest.StaticStringSlice{"X-Remote-Uid"},
		RequestHeaderGroupHeaders:        headerrequest.StaticStringSlice{"X-Remote-Group"},
		RequestHeaderExtraHeaderPrefixes: headerrequest.StaticStringSlice{"X-Remote-Extra-"},
	}
}
