// Package catalogue holds the table of attacks in test/attack/README.md to the tests
// that there are. It reads files and runs nothing.
package catalogue
