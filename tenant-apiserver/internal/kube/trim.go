package kube

import (
	"fmt"
	"reflect"
	"unsafe"

	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
)

// Fields of upstream's aggregator that have no other door.
const (
	fieldCertificate = "proxyCurrentCertKeyContent"
	fieldDiscovery   = "discoveryAggregationController"
)

// trim gives upstream's aggregator the front proxy's certificate, which it would else
// watch files for, and takes its discovery controller away, beside which remotes has
// one of its own. Both begin a queue as they are made, whose goroutines only their
// hooks would end: a control plane that sleeps and wakes would leave some each time.
func trim(s *aggregatorapiserver.APIAggregator, cert func() (certPEM, keyPEM []byte)) error {
	certificate, err := unexported(s, fieldCertificate, reflect.TypeOf(cert))
	if err != nil {
		return err
	}
	certificate.Set(reflect.ValueOf(cert).Convert(certificate.Type()))
	discovery, err := unexported(s, fieldDiscovery, reflect.TypeFor[aggregatorapiserver.DiscoveryAggregationController]())
	if err != nil {
		return err
	}
	controller, ok := discovery.Interface().(aggregatorapiserver.DiscoveryAggregationController)
	if !ok {
		return fmt.Errorf("the aggregator has no discovery controller: review internal/kube")
	}
	ended := make(chan struct{})
	close(ended)
	controller.Run(ended, nil) // its queue ends with it
	discovery.SetZero()        // upstream looks whether it is there
	return nil
}

// unexported returns a field that can be set, which must be of a type like that, if one is
// given.
func unexported(s *aggregatorapiserver.APIAggregator, name string, like reflect.Type) (reflect.Value, error) {
	f := reflect.ValueOf(s).Elem().FieldByName(name)
	if !f.IsValid() || like != nil && !like.ConvertibleTo(f.Type()) {
		return f, fmt.Errorf("the aggregator's field %s is not what it was in Kubernetes %s: review internal/kube", name, Version)
	}
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem(), nil
}
