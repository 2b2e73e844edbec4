// Package rules says what of custom resources crosses between a tenant and the host.
//
//	v1alpha1.CustomResourceRule --Compile--> Rule
//	    Rule.Down        the tenant's object  -> the host's, or why not
//	    Rule.Status      the host's object    -> the tenant's status
//	    Rule.View        an object of the host -> what a tenant sees of it
//	    Rule.Definition  the host's CustomResourceDefinition -> the tenant's
//	    Rule.Secret      a Secret of the host that was made for an object -> the tenant's
//
// A rule is a tree of the paths that it names. What crosses is built from zero by
// walking that tree and the object side by side: a field whose path is not in the
// tree is not read, so it cannot cross. References become names of the same tenant's
// objects in the one host namespace of the tenant; what stands for another namespace
// is refused. Whatever crosses is bounded in size.
//
// Everything is pure. The package never looks at an API, never copies an object to
// take things out of it, and never decides about a kind that a plan does not name.
package rules
