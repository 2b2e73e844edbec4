package etcdclient

import (
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

// Open returns a client of a registered endpoint, as upstream's storage code gets
// one: for what else in an API server reads its storage. The error wraps
// ErrUnknownEndpoint.
func Open(endpoint string) (*kubernetes.Client, error) {
	return newClient(storagebackend.TransportConfig{ServerList: []string{endpoint}})
}
