// Package informer gives the controllers of one control plane their informers,
// fed from the control plane's own store instead of from its API.
//
// Upstream's informer lists and watches over HTTP: for each of some seventy
// kinds there is a reflector, a request, a decoder and a watch of the storage, and
// for each of some hundred and sixty handlers two goroutines and a ring buffer. In
// a process with a hundred control planes that is most of the memory. Here one
// goroutine per control plane, the feed, reads every change of the store once and
// hands it to the informers of its kind:
//
//	store --one watch--> feed --key prefix--> Informer --indexer, queue--> listener
//	      --a list each, when an informer starts-->       (a goroutine while it has work)
//
// Factory is an informers.SharedInformerFactory, and what it gives out keeps the
// contract that client-go documents for SharedInformer: the cache's states are a
// subsequence of the store's, a handler gets first what is there and then the
// changes in order, one at a time; resyncs, transforms, indexers, removal of
// handlers and the ways to wait for them are the same. A queue is bounded by the
// number of objects: when a handler is far behind, what it has not seen yet of one
// object is told as one change, which the contract allows.
//
// Objects of kinds that the store does not hold as the control plane's own (there
// are none among those that upstream's controllers use) get upstream's informer.
//
// The package never writes, asks no authorizer (informers are the control plane's
// own), and knows nothing of how kinds are encoded: Config.Resolve says that.
package informer
