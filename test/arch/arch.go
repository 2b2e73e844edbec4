// Package arch holds the rules about the code itself: who may import whom, that
// every package says what it is, and how long files may grow.
//
// The rules are tests (arch_test.go) over what `go list` reports, so they see
// the code as the compiler does. The package has nothing to import.
package arch
