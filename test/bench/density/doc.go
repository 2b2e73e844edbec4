// Command density measures what a control plane costs: ours, many in a process, and
// beside them, in the same run, upstream's etcd, kube-apiserver and
// kube-controller-manager as processes.
//
//	main -> one child after the other, so that no competitor's memory is another's
//	  "ours"   server.Start for 1, 10, 100 control planes, measured at each; then a
//	           quiet one beside one that is flooded
//	  "used"   control planes with a thousand objects, their controllers at work on
//	           them, and three watchers from outside
//	  "cell"   tenants of a cell that run, fall asleep, and are woken by a connection
//	  "adopt"  a cell that starts with the same tenants asleep
//	  "peer"   the three processes for one control plane, and for several
//	     -> figures as JSON lines -> `value NAME VALUE UNIT`, `ratio NAME VALUE`
//	     -> which bars were held, and which were missed
//
// Memory is read from smaps_rollup (proc(5)): "natural" is what is resident, and
// "anon" the anonymous part after a collection of garbage; "heap" is what of it is in
// use, in Go's words. Marginal is the difference that the last control planes made,
// divided by their number. Processor time is that of all processes in a window in which
// nobody asks for anything. Control planes are made one after the other, each when the
// one before it is ready: /readyz says so, and controllers have made a service account.
//
// A quiet control plane and its neighbour's flood are measured in rounds, alone and beside
// the flood in turns, and the percentiles are those of all rounds. Their clients stand for
// clients on other machines, see startAs: the one that measures has a processor when it
// wants one, those that flood have what the cell leaves.
//
// Clients that flood or watch are processes of their own; what makes a control plane
// and asks it for the first time is in the process that is measured. It needs bin/peers
// (`make upstream`), writes to a temporary folder, and talks to loopback only.
package main
