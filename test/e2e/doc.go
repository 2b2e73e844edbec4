// Package e2e drives the built binary on real containers: one machine (package
// wire), Sublet on it, and what providers and tenants do with kubectl and sublet.
//
// All tests share the machine; each makes the tenants it needs under names of its
// own and deletes them. Tenants do not notice each other, so tests that only use
// theirs are parallel: most of what they do is waiting. A test that does something to
// the machine, such as killing a process of Sublet, is not. When a test fails, it
// says what its tenants were like (machine.Explain).
//
// `make test` builds what they run: bin/sublet, bin/node and bin/images. They need
// root and skip without it.
package e2e
