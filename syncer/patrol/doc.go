// Package patrol walks slowly through everything that is synced, whether or not
// anything was observed to change, so that what an event did not bring in step does
// not stay so for ever.
//
// A [Patrol] asks for the keys of both sides, hands them one by one to the engine to
// be compared, and counts what took a write. Of the host side it judges ([Judge]) the
// marks of what is really there, for the informers see only objects that are marked
// whole.
//
// It never compares or writes by itself: the passes of the engine do. It never guesses
// an owner: marks are restored only on an object whose annotations and name agree.
package patrol
