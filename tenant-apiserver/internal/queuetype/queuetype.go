// Package queuetype names a type of client-go that is not exported: that of work
// queues' metrics while there are none. Who has a value of it can turn the metrics of a
// process's queues off again, which an import turned on (internal/kube does).
//
// It is a package of its own, and imports nothing, because the compiler does not take a
// variable for a type in a package that knows the type.
package queuetype

import _ "unsafe" // for go:linkname

// NoMetrics is the type k8s.io/client-go/util/workqueue.noopMetricsProvider, as the
// runtime has it: its address is that of the type's descriptor. It is zero when there is
// no such type in the program.
//
//go:linkname NoMetrics type:k8s.io/client-go/util/workqueue.noopMetricsProvider
var NoMetrics [48]byte
