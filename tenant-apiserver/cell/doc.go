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
// do not notice. So does one whose store goes out of service (a disk error, say):
// it is stopped and started again, which opens the store anew and finds out what
// is on disk. A companion that ends is started again while the API goes on.
//
// A cell warms up as it starts, so that its first tenant need not wait for what
// all tenants share. A tenant that comes before waits only for what it needs.
//
// Goroutines: each tenant has one that owns it (start, watch, stop, try again)
// and waits for the two below it: the TLS listener's and the companion's. One
// more warms up and ends. [Cell.Run] waits for all of them.
package cell
