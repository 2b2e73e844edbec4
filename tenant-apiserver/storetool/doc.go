// Package storetool looks into stores and backups for people: how large they are,
// what takes the room, which keys they have.
//
//	open store --pages at one revision--+
//	                                    +--> Each --> Stat | Dump
//	backup     --verified as it goes----+
//
// It knows how Kubernetes names its keys, which packages store and backup do not,
// and nothing of what the values mean: an encrypted value is a value. It changes
// nothing.
package storetool
