package kube

import (
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/controller-manager/pkg/clientbuilder"
)

// controllerAgent is how controllers call themselves to the API: what they wrote is
// in managed fields under the part before the slash, as on any cluster.
const controllerAgent = "kube-controller-manager/" + Version

// oneClient gives all controllers the same client. They have the same rights, and
// thirty clients of which each knows every API group would differ in nothing but
// their names.
type oneClient struct {
	config *rest.Config
	client kubernetes.Interface
}

var _ clientbuilder.ControllerClientBuilder = oneClient{}

func newOneClient(config *rest.Config) (oneClient, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = controllerAgent
	client, err := kubernetes.NewForConfig(config)
	return oneClient{config, client}, err
}

func (o oneClient) Config(string) (*rest.Config, error) { return rest.CopyConfig(o.config), nil }

func (o oneClient) ConfigOrDie(string) *rest.Config { return rest.CopyConfig(o.config) }

func (o oneClient) Client(string) (kubernetes.Interface, error) { return o.client, nil }

func (o oneClient) ClientOrDie(string) kubernetes.Interface { return o.client }

func (o oneClient) DiscoveryClient(string) (discovery.DiscoveryInterface, error) {
	return o.client.Discovery(), nil
}

func (o oneClient) DiscoveryClientOrDie(string) discovery.DiscoveryInterface {
	return o.client.Discovery()
}
