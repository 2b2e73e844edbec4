// Package engine keeps two sides in step: it observes both, proves ownership,
// compares, and writes one side.
//
// What flows through it: informers of both sides report objects; a function given
// to [Engine.Watch] turns each into keys; the keys wait in one rate-limited queue (so
// a key is never worked on twice at a time, and a failing one backs off), in which
// kinds take turns; a worker hands the key to the [Pass] of its kind. A pass looks at the level, never
// at the event: it reads what is there now and does the one next write.
//
// What is written to the host passes a [Budget], which the engines of a process share
// and in which their tenants take turns. So do their passes, while more than one tenant
// writes.
//
// There are two generic passes. [Mirror] keeps one target object for each source
// object and decides by existence: both, source only, target only. [Adjust] writes
// one part (a status, a subresource) of an object that is on both sides. A kind is
// a value of one of them: data and pure functions.
//
// What it never does: adopt an object whose owner it cannot prove, write or delete
// by name alone (deletes carry the UID as a precondition, updates the resource
// version), write two sides in one pass, or decide anything about a kind.
package engine
