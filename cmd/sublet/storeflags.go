package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sublet.dev/api/v1alpha1"
)

// storeFlags say where a tenant's cluster is kept.
type storeFlags struct {
	endpoints         []string
	prefix, tls, auth string
}

func (f *storeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.endpoints, "store-etcd", nil, "keep the tenant's cluster in this etcd instead of a file: the client URLs of its members")
	cmd.Flags().StringVar(&f.prefix, "store-etcd-prefix", "", "what begins all of the tenant's keys there (default: /sublet/NAME/)")
	cmd.Flags().StringVar(&f.tls, "store-etcd-tls", "", "Secret in namespace "+v1alpha1.SystemNamespace+" of the host API with ca.crt and, for a client certificate, tls.crt and tls.key")
	cmd.Flags().StringVar(&f.auth, "store-etcd-auth", "", "Secret in namespace "+v1alpha1.SystemNamespace+" of the host API with username and password of an etcd user")
}

// spec returns what the flags say, or nil. The host API checks it.
func (f *storeFlags) spec() (*v1alpha1.StoreSpec, error) {
	if len(f.endpoints) == 0 {
		if f.prefix+f.tls+f.auth != "" {
			return nil, usageErrorf("--store-etcd-prefix, --store-etcd-tls and --store-etcd-auth belong to --store-etcd")
		}
		return nil, nil
	}
	etcd := &v1alpha1.EtcdStore{Endpoints: f.endpoints, Prefix: f.prefix}
	if f.tls != "" {
		etcd.TLS = &v1alpha1.EtcdTLS{SecretName: f.tls}
	}
	if f.auth != "" {
		etcd.Auth = &v1alpha1.EtcdAuth{SecretName: f.auth}
	}
	return &v1alpha1.StoreSpec{Etcd: etcd}, nil
}

// describeStore says where a tenant's cluster is kept.
func describeStore(vc *v1alpha1.VirtualCluster) string {
	prefix := vc.EtcdPrefix()
	if prefix == "" {
		return "a file on the host"
	}
	etcd := vc.Spec.Store.Etcd
	var as []string
	if etcd.Auth != nil {
		as = append(as, "user of Secret "+etcd.Auth.SecretName)
	}
	if etcd.TLS != nil {
		as = append(as, "certificates of Secret "+etcd.TLS.SecretName)
	}
	return "etcd " + strings.Join(slices.Sorted(slices.Values(etcd.Endpoints)), ",") + ", prefix " + prefix + ", " + cmp.Or(strings.Join(as, ", "), "no credentials")
}

// sameStore says whether two tenants, one of which need not exist, are kept at the
// same place.
func sameStore(a, b *v1alpha1.VirtualCluster) bool { return describeStore(a) == describeStore(b) }
