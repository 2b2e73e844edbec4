// Package nft puts one nftables table into the kernel, reads it back and prints
// it. It is thin: what stands in the table is its users' business.
//
// The flow: a user describes the whole table as a [Table] -> [Kernel.Apply] makes
// the kernel's table equal to it in one transaction, so that no packet ever meets
// half of it -> [Kernel.Read] tells what the kernel has, in the same form, for
// comparison. [Table.Script] prints the same for people and for `nft -f`, without
// a kernel.
//
// Named counters keep their values over an Apply. The package never looks at, or
// changes, another table, and never leaves the network namespace it is called in.
package nft
