package kube

import (
	"fmt"
	"runtime"
	"sync"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/capabilities"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// gates are the feature gates that differ from upstream's defaults. They hold
// for the whole process.
var gates = map[string]bool{
	// Streams lists from an etcd server; ours answers in process.
	"EtcdRangeStream": false,
	// Forwards requests between API servers of different versions of one
	// cluster. Each of ours is alone.
	"UnknownVersionInteroperabilityProxy": false,
	// Keeps a lease that names the machine in kube-system, where a tenant
	// could read it.
	"APIServerIdentity": false,
	// A page about the process, which is not a tenant's own: it says when the
	// process began.
	"ComponentStatusz": false,
}

var prepared = sync.OnceValue(prepare)

// Prepare makes the process fit to run control planes. It is idempotent, and
// every call returns the first one's error.
func Prepare() error { return prepared() }

func prepare() error {
	if err := etcdclient.Install(); err != nil {
		return fmt.Errorf("install the storage seam: %w", err)
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(gates); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	// A process holds the control planes of many tenants. Upstream re-throws
	// a panic of a controller after logging it, and ends the process when a
	// start hook fails; here either may cost only the tenant it happened to.
	utilruntime.ReallyCrash = false
	klog.OsExit = func(int) { runtime.Goexit() }
	// Whether a pod may be privileged is decided for each flavour at
	// admission; this process-wide switch only enables the field.
	capabilities.Setup(true, 0)
	// The loopback clients' warnings would repeat a user's to the log.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if err := unshareDefinitions(); err != nil {
		return err
	}
	if err := checkPriorities(); err != nil {
		return err
	}
	return checkFragile()
}
