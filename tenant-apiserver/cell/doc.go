// Package cell hosts the control planes of many tenants in one process.
//
//	manager --HTTP, unix socket--> Cell --+-- tenant a: server + companion, socket a
//	front door --TLS bytes, unix sockets--+-- tenant b: server + companion, socket b
//
// A cell keeps nothing: the manager tells it which tenants to host (PUT), and
// tells it again when the process was restarted, which it sees by the instance in
// the answer. What lasts is in the tenants' directories: a store and the keys
// ([Config.Dir], one per tenant).
//
// A companion is the work that goes with a control plane, in practice the tenant's
// syncer. The cell does not know it: the program that puts the parts together
// gives a function that makes one.
//
// A tenant whose control plane does not start (a corrupt store, say) fails alone:
// its status tells why, it is tried again from time to time, and its neighbours
// do not notice. A companion that ends is started again while the API goes on.
//
// Goroutines: each tenant has one that owns it (start, watch, stop, try again)
// and waits for the two below it: the TLS listener's and the companion's.
// [Cell.Run] waits for all of them.
package cell
