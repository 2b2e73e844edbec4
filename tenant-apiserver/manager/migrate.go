package manager

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/cell"
)

// EtcdOf returns where in an etcd a tenant's cluster is to be kept, as the manager
// would tell the tenant's cell: with credentials from their Secrets, and refused when
// the prefix overlaps with that of an older tenant. The zero value: in a file. It is
// for moving a tenant before its VirtualCluster says so.
func EtcdOf(ctx context.Context, api client.Client, vc *v1alpha1.VirtualCluster) (cell.EtcdStore, error) {
	m := &Manager{api: api}
	if err := m.ownsPrefix(ctx, vc); err != nil {
		return cell.EtcdStore{}, err
	}
	return m.etcd(ctx, vc)
}
