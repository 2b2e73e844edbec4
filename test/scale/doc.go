// Package scale has many tenants on one machine: made, asleep, woken in random order by
// a request each through the front door, and deleted, with everything that they took
// given back. They are control planes only and have no pods.
//
// `make scale` does it with a thousand, or with as many as SIZE says; by itself the
// test is skipped. Tenants are made through the host API, as `sublet create` makes
// them; processes are looked at from outside, and by the profiles that they answer on
// their sockets (DATA/run/NAME.sock). Nothing is asserted about time. Figures are
// printed as lines "value NAME VALUE UNIT", and how far it is as lines of their own.
//
// The test needs root and skips without it.
package scale
