// Command density measures what a control plane costs: ours, many in a process, and
// beside them, in the same run, upstream's etcd, kube-apiserver and
// kube-controller-manager as processes.
//
//	main -> one child per competitor, so that neither's memory is the other's
//	  child "ours":  server.Start for 1, 10, 100 control planes, measured at each
//	  child "peer":  the three processes for one control plane, and for several
//	     -> figures as JSON lines -> table, `value NAME VALUE UNIT`, `ratio NAME VALUE`
//
// Memory is read from smaps_rollup (proc(5)): "natural" is what is resident, and
// "anon" the anonymous part after a collection of garbage. Marginal is the difference
// that the last control planes made, divided by their number. Processor time is that
// of all processes in a window in which nobody asks for anything.
//
// It needs bin/peers (`make upstream`), writes to a temporary folder, and talks to
// loopback only.
package main
