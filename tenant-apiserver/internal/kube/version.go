package kube

import (
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"
)

// Version is the Kubernetes release that is linked.
const Version = "v1.37.1"

// released reports the linked release at /version. Upstream takes it from linker
// flags of its own build; without, clients would see v0.0.0 and take the
// server for an ancient one.
type released struct {
	compatibility.EffectiveVersion
}

// Info implements compatibility.EffectiveVersion.
func (r released) Info() *apimachineryversion.Info {
	info := r.EffectiveVersion.Info()
	info.GitVersion = Version
	info.GitCommit = ""
	return info
}
