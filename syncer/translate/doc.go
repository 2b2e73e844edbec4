// Package translate says what a tenant's objects are on the host, and what the
// tenant is told about them: a file per kind, spec down and status up.
//
// Every function is pure: it depends on its arguments, on the tenant, and on what
// [Lookup] and [Data] answer; it changes none of its arguments and talks to
// nothing.
//
// Host objects are built from zero, field by field. For pods the decision on every
// field of the API stands in one table ([decisions]): copied, translated, forced,
// dropped or refused. A field without a decision refuses the pod when it is set,
// and fails a test when it is new.
//
// No key that a tenant chose reaches the host: labels are mapped by
// isolation/tenant, annotations are ours alone. Nothing of the host but what is
// listed here reaches the tenant: names are masked ([Reveal]), addresses of nodes
// too.
package translate
