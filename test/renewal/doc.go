// Package renewal has the process of a cell replaced, on a machine on which that is done
// every few seconds, while its tenants sleep and while somebody connects; and has it
// killed.
//
// The test needs root and skips without it.
package renewal
