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
// # Sleep
//
// A tenant to whom nobody has been connected for the time in its plan, and in which
// nothing is going on, is put to sleep: control plane and companion end, the store is
// closed, and only its socket and a small record are left. What makes it wake:
//
//	a connection        the socket accepts all the time; connections wait, and are
//	                    served once the control plane runs
//	a change of a host  the manager compares what is there with what the companion
//	object              had seen ([Status.Seen]) and calls [Cell.Wake]
//	time                the next moment at which a controller (package idle) or the
//	                    companion would have acted by itself ([Status.Due])
//
// Whether something is going on is asked in this order: connections, the companion,
// the tenant's objects; and then once more whether anything was written meanwhile.
// What is not known keeps a tenant awake. The record is on disk, so that tenants go
// on sleeping when their cell is started again; it does not hold any more when the
// tenant or its store is another. Beside it is what a client would otherwise miss
// ([server.Carried]); whoever wakes takes it away, and does without what is damaged.
//
// What is done with a store (look, check, back up, restore, rewrite, move) goes
// through the cell, because it holds the file's lock. Looking and backing up read
// the open store; what exchanges the file is a task of the tenant's own goroutine,
// done between two lives of the control plane. One goroutine of the cell looks
// through all open stores for damage, again and again and slowly.
//
// A cell without tenants warms up as it starts, so that its first tenant need not wait
// for what all tenants share. A tenant that comes before waits only for what it needs.
//
// A process that takes the place of one that died is given all tenants of that at
// once ([Cell.Resume]). They listen at once; a few control planes are started at a
// time, first those to whom somebody has connected.
//
// When tenants have fallen asleep, or are gone, their memory is given back to the
// system: a moment later, and for a bounded part of the time.
//
// Where many control planes have run there are gaps: Go does not move objects. So a cell
// ends by itself ([Config.Renew]) when all its tenants have slept for a while, and has
// another process take its place, which has none. First the kernel is made to refuse
// connections to the tenants' sockets, which the front door holds then; if anybody has
// connected before, the cell goes on. Nobody is told that tenants stop, for they do not:
// the next process is given them as after a death, and they sleep on.
//
// Goroutines: each tenant has one that owns it (start, watch, stop, try again)
// and waits for those below it: one accepts connections; while the control plane
// runs there are the TLS listener's, the companion's, and one that looks whether the
// tenant may sleep. One more warms up and ends,
// and one waits for the time at which all sleep. [Cell.Run] waits for all of them.
package cell
