package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

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
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(v1alpha1.VirtualClusterManifest, &crd.Object); err != nil {
		return fmt.Errorf("decode the manifest of VirtualCluster: %w", err)
	}
	objects := []runtime.Object{crd}
	for _, o := range baseline.Host() {
		objects = append(objects, o)
	}
	for _, o := range agentRights() {
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
	return s.credentials(authority).write()
}

func (s *hostServer) credentials(authority *pki.Authority) credentials {
	return credentials{
		dir: s.dir, authority: authority, nodeName: s.node.name, nodeIP: s.node.addr,
		server: netip.AddrPortFrom(s.node.addr, s.host.apiPort),
	}
}

// waitServed waits until VirtualClusters can be listed.
func waitServed(ctx context.Context, c client.Client) error {
	var last error
	err := poll(ctx, furnishTime, func(ctx context.Context) (bool, error) {
		last = c.List(ctx, &v1alpha1.VirtualClusterList{})
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the host API does not serve VirtualClusters: %w (%w)", last, err)
	}
	return nil
}
