// Package measure counts the requests to one control plane.
//
//	a connection --Meter.Wrap--> the control plane's handler
//	GET /metrics of the tenant ----------> Meter.Handler: this tenant's numbers alone
//	the provider's --Label, Merge--> all tenants' numbers, with a label that says whose
//	Meter.Carry --a sleep--> Meter.Resume of the next, which goes on from there
//
// Upstream's metrics are the process's: those of up to a hundred tenants together,
// with names of their custom resources. So each control plane has a registry of its
// own, and what is in it comes from here: upstream's names and labels, for requests
// that come over a connection.
//
// A name of a resource becomes a label only once a request for it was served, and the
// number of series is bounded: nobody can make others by asking for what there is not.
// It never records who asked, or the name of an object.
package measure
