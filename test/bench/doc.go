// Package bench measures what docs/benchmarks.md reports: how long a tenant takes
// and what it weighs, on real containers, through the same commands that users
// have.
//
// The benchmarks assert nothing about time; `make bench` prints their figures.
package bench
