// Package report keeps the books of conformance runs.
//
//	junit.xml --ReadJUnit--> Outcomes --Update--> results/RUNTIME.txt (all runs so far)
//	                            |                        |
//	known.yaml --ReadKnown--> Known --Surprises     WriteFigures --> docs/conformance.md
//
// A run may be of a part of the suite: it changes the records of the tests that ran and
// of no others. A figure in the docs comes from the records, never from a hand.
package report
