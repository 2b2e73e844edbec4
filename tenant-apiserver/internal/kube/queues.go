package kube

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"k8s.io/client-go/util/workqueue"

	"sublet.dev/tenant-apiserver/internal/queuetype"
)

// queueMetrics is where work queues get their metrics from, of the whole process.
//
//go:linkname queueMetrics k8s.io/client-go/util/workqueue.globalMetricsProvider
var queueMetrics workqueue.MetricsProvider

// measureNoQueues makes work queues without metrics from now on. For each queue with
// metrics there is a goroutine that looks twice a second how long work takes: of what
// a control plane does when nobody asks for anything, that was most. And the numbers
// would be those of all tenants of the process together. The caller holds constructMu.
var measureNoQueues = sync.OnceValue(func() error {
	wrong := fmt.Errorf("work queues' metrics are not what they were in Kubernetes %s: review internal/kube", Version)
	if queuetype.NoMetrics == [len(queuetype.NoMetrics)]byte{} || queueMetrics == nil {
		return wrong
	}
	// A queue compares its provider with a value of this very type.
	var none any
	*(*[2]unsafe.Pointer)(unsafe.Pointer(&none)) = [2]unsafe.Pointer{unsafe.Pointer(&queuetype.NoMetrics), unsafe.Pointer(&struct{}{})}
	provider, ok := none.(workqueue.MetricsProvider)
	if !ok || reflect.TypeOf(none).String() != "workqueue.noopMetricsProvider" {
		return wrong
	}
	queueMetrics = provider
	return nil
})
