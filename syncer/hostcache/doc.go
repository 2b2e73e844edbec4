// Package hostcache is a cell's cache of its tenants' host namespaces: one for all
// syncers of a process, divided by namespace and kind.
//
//	host --list, watch of one kind in one namespace--> reflector (client-go's)
//	     --> View: the objects and their indexes
//	     --> the handlers of the one syncer that has the namespace, on the reflector's goroutine
//
// A syncer gets a [Space], the part of its own namespace, and of that a [View] of
// each kind. Nothing leads from a view to another namespace: each has a store of its
// own, asks the host about its namespace alone, and takes no object of another,
// whatever the host answers. There is no list or watch of several namespaces: the
// rights of a cell are given for each namespace by itself.
//
// What a plan's rules make and show comes and goes while a namespace is joined: a view of
// a kind that goes to the host is a guest of its space ([Space.LetIn]). What tenants are
// shown of other places of the host is the same for all of them: there is one informer of
// a kind and place for the cache, a [Common], while some syncer has it.
//
// Views begin their lists and watches in turns, so that they share connections.
//
// A view watches only while there is something to see. It begins with a list; if that
// is empty, it ends there, because the syncer is the only one that makes objects of
// its kind there. Before the syncer makes one, it holds the view ([View.Hold]), which
// then watches. What others make there is found by whoever lists the namespace, now
// and then, and says so ([View.Want]).
//
// It never writes, and keeps nothing of a namespace that was left.
package hostcache
