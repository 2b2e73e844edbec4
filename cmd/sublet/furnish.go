package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// furnishTime bounds what furnish waits for.
const furnishTime = time.Minute

// furnish gives the host API what Sublet needs of it: the kinds of its own, the
// sandboxes, the agents' rights. Then it writes the credentials. What a cell needs
// is made when the cell is started.
func (s *hostServer) furnish(ctx context.Context, api *server.Server, authority *pki.Authority) error {
	ctx, cancel := context.WithTimeout(ctx, furnishTime)
	defer cancel()
	c, err := newHostClient(api.Loopback())
	if err != nil {
		return err
	}
	var objects []runtime.Object
	for _, manifest := range v1alpha1.Manifests() {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(manifest, &crd.Object); err != nil {
			return fmt.Errorf("decode the manifest of a kind: %w", err)
		}
		objects = append(objects, crd)
	}
	objects = append(objects, &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace},
	})
	for _, o := range baseline.Host() {
		objects = append(objects, o)
	}
	for _, o := range append(agentRights(), baseline.LocalStorage()) {
		objects = append(objects, o)
	}
	for _, o := range objects {
		if err := manager.Apply(ctx, c, o); err != nil {
			return err
		}
	}
	if err := waitServed(ctx, c); err != nil {
		return err
	}
	if err := manager.EnsurePlans(ctx, c); err != nil {
		return err
	}
	return s.credentials(authority).write()
}

func (s *hostServer) credentials(authority *pki.Authority) credentials {
	return credentials{
		dir: s.dir, authority: authority, nodeName: s.node.name, nodeIP: s.node.addr,
		server: netip.AddrPortFrom(s.node.addr, s.host.apiPort),
	}
}

// waitServed waits until the kinds of Sublet's own can be listed.
func waitServed(ctx context.Context, c client.Client) error {
	var last error
	err := poll(ctx, furnishTime, func(ctx context.Context) (bool, error) {
		last = errors.Join(c.List(ctx, &v1alpha1.VirtualClusterList{}), c.List(ctx, &v1alpha1.PlanList{}), c.List(ctx, &v1alpha1.CredentialList{}))
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the host API does not serve the kinds of Sublet: %w (%w)", last, err)
	}
	return nil
}
