package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
)

const (
	// credentialsAgain is how soon the Secrets of a tenant on an etcd are looked at
	// again: new credentials restart it.
	credentialsAgain = time.Minute
	// removeEtcdTimeout bounds the removal of a tenant's keys.
	removeEtcdTimeout = 30 * time.Second
)

// errStoreSpec means that a tenant's store is not as its spec says, which waiting
// does not help.
var errStoreSpec = errors.New("spec.store.etcd")

// etcd returns where in an etcd the tenant's cluster is kept, with the credentials
// from their Secrets; the zero value when it is kept in a file.
func (m *Manager) etcd(ctx context.Context, vc *v1alpha1.VirtualCluster) (cell.EtcdStore, error) {
	prefix := vc.EtcdPrefix()
	if prefix == "" {
		return cell.EtcdStore{}, nil
	}
	spec := vc.Spec.Store.Etcd
	e := cell.EtcdStore{Endpoints: strings.Join(spec.Endpoints, ","), Prefix: prefix}
	if spec.TLS != nil {
		s, err := m.secret(ctx, spec.TLS.SecretName)
		if err != nil {
			return e, err
		}
		e.CA, e.Cert, e.Key = string(s.Data["ca.crt"]), string(s.Data[corev1.TLSCertKey]), string(s.Data[corev1.TLSPrivateKeyKey])
	}
	if spec.Auth != nil {
		s, err := m.secret(ctx, spec.Auth.SecretName)
		if err != nil {
			return e, err
		}
		e.Username, e.Password = string(s.Data[corev1.BasicAuthUsernameKey]), string(s.Data[corev1.BasicAuthPasswordKey])
	}
	if _, err := e.Config(); err != nil {
		return e, fmt.Errorf("%w: %w", errStoreSpec, err)
	}
	return e, nil
}

func (m *Manager) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	var s corev1.Secret
	err := m.api.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: name}, &s)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: Secret %s/%s does not exist", errStoreSpec, v1alpha1.SystemNamespace, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
	}
	return &s, nil
}

// ownsPrefix refuses a tenant whose keys would be among those of an older one, or
// around them. Two addresses of one etcd are not recognized; the tenant's ID, which
// is stamped into its part, is what keeps out whoever comes second then.
func (m *Manager) ownsPrefix(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	if vc.EtcdPrefix() == "" {
		return nil
	}
	var list v1alpha1.VirtualClusterList
	if err := m.api.List(ctx, &list); err != nil {
		return fmt.Errorf("list the tenants: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID != vc.UID && overlap(vc, other) && older(other, vc) {
			return fmt.Errorf("%w: the prefix %s overlaps with that of tenant %s, %s", errStoreSpec, vc.EtcdPrefix(), other.Name, other.EtcdPrefix())
		}
	}
	return nil
}

func overlap(a, b *v1alpha1.VirtualCluster) bool {
	p, q := a.EtcdPrefix(), b.EtcdPrefix()
	if p == "" || q == "" || !strings.HasPrefix(p, q) && !strings.HasPrefix(q, p) {
		return false
	}
	return slices.ContainsFunc(a.Spec.Store.Etcd.Endpoints, func(e string) bool { return slices.Contains(b.Spec.Store.Etcd.Endpoints, e) })
}

func older(a, b *v1alpha1.VirtualCluster) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.UID < b.UID
}

// removeEtcd removes what a tenant that has ended keeps in an etcd. One that never
// ran has hardly anything there, and may never have had an etcd to ask.
func (m *Manager) removeEtcd(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	if vc.EtcdPrefix() == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeEtcdTimeout)
	defer cancel()
	err := m.emptyEtcd(ctx, vc)
	if err != nil && !slices.ContainsFunc(m.config.Files(tenant.ID(vc.UID)), cell.HasRun) {
		m.config.Logger.Warn("a tenant that never ran may have left keys in its etcd", "tenant", vc.Name, "prefix", vc.EtcdPrefix(), "error", err)
		return nil
	}
	return err
}

func (m *Manager) emptyEtcd(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	e, err := m.etcd(ctx, vc)
	if err != nil {
		return err
	}
	c, err := e.Config()
	if err != nil {
		return err
	}
	return server.RemoveEtcd(ctx, *c, string(vc.UID))
}
