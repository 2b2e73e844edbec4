// Package attack has attacks on tenants' control planes from outside, as tests on real
// ones: an attacker's and a victim's, in one process and behind one front door, as in
// production. Each has a positive control: the same prober is let through where it
// may. The kubelet behind them records what it is asked, so a test sees what would
// have reached a node.
//
// Other attacks are tested where their target is: README.md has all of them.
package attack
