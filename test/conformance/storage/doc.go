// Package storage has upstream judge the store: it runs the tests that
// k8s.io/apiserver keeps for its own etcd3 storage and watch cache, on a client
// of ours.
//
//	module cache: k8s.io/apiserver
//	   | copied to a temporary folder; testdata/test_server.go put in the place
//	   | of the one file from which all tests there get their etcd
//	   v
//	go test -json k8s.io/apiserver/pkg/storage/etcd3 .../cacher
//	   | each test's outcome
//	   v
//	a failure for each that failed, and when too few were run
//
// Those tests are inside upstream's packages and cannot be imported; what can
// be, k8s.io/apiserver/pkg/storage/testing, is run by package etcdclient's own
// tests. Nothing of upstream is kept here, and the copy is removed again.
//
// Two edits make the copy fit: etcd's configuration type is replaced by that of
// our test server, and the files of package etcdclient that redirect
// upstream's storage factory are left out, since a package under test cannot be
// imported by what its tests import.
package storage
