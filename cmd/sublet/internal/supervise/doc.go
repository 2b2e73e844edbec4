// Package supervise keeps child processes running, in such a way that they
// survive the process that started them.
//
// Every process that has to be single claims a [Slot]: it locks the slot's lock
// file for as long as it lives and writes a [Record] of itself beside it (process
// id, start time, boot, build). The lock, which the kernel drops when the
// process dies, makes it single; the record lets others find it.
//
//	up --- Run(server) --- fork/exec --> server: Claim(slot)
//	 X (kill -9)                          | lives on
//	up' -- Run(server) --- record, pidfd -+ adopted, watched, restarted when it dies
//
// [Run] first looks for a live holder of the slot. One with the same build
// and arguments is adopted; another is asked to end and replaced. A holder is
// identified by process id, start time and boot, and is signalled through a
// pidfd, so a process id that was given to another process is never signalled.
// When two supervisors race, the slower child fails to claim the slot, exits, and
// its supervisor adopts the faster one.
//
// The package never kills by name, never guesses, and knows nothing of what the
// processes do.
package supervise
