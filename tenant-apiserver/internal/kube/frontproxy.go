package kube

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/kubernetes/pkg/controlplane/controller/clusterauthenticationtrust"

	"sublet.dev/tenant-apiserver/pki"
)

// frontProxyUser is who the API server is to the servers behind it.
const frontProxyUser = "front-proxy-client"

// renewFrontProxy is how long before its end the certificate is replaced.
const renewFrontProxy = 365 * 24 * time.Hour

// frontProxy is how aggregated API servers know that a request comes from this API
// server and has the headers that say for whom. It has an authority of its own, as
// upstream asks for: a client certificate of the tenant's authority, whatever name
// is in it, does not make anybody a front proxy.
type frontProxy struct {
	ca                dynamiccertificates.CAContentProvider
	certFile, keyFile string
}

// newFrontProxy makes the authority and a certificate, or finds them beside the
// files of the control plane's authority.
func newFrontProxy(of *pki.Authority) (*frontProxy, error) {
	dir := filepath.Join(filepath.Dir(of.CAFile()), "front-proxy")
	authority, err := pki.LoadOrCreate(dir, "sublet-front-proxy")
	if err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	f := &frontProxy{certFile: filepath.Join(dir, "client.crt"), keyFile: filepath.Join(dir, "client.key")}
	if f.ca, err = dynamiccertificates.NewStaticCAContent("front-proxy-ca", authority.CAPEM()); err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err == nil && time.Until(pair.Leaf.NotAfter) > renewFrontProxy {
		return f, nil
	}
	if f.certFile, f.keyFile, err = authority.ClientFiles("client", frontProxyUser, nil); err != nil {
		return nil, fmt.Errorf("front proxy: %w", err)
	}
	return f, nil
}

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
