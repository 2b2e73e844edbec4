// Package authn lets users of a tenant log in with tokens of OpenID Connect issuers.
//
//	VirtualCluster.spec.authentication --Parse--> upstream's AuthenticationConfiguration
//	                                   --Issuers.Set--> upstream's authenticators, one for each issuer
//	a bearer token --Issuers.AuthenticateToken--> who it is, or an error (401)
//
// The configuration is upstream's (apiserver.config.k8s.io), so are its validation and
// the authenticators. What is ours:
//
//   - No issuer makes a user or group whose name begins with "system:": those are of
//     certificates and service accounts of the tenant alone. A token that says
//     otherwise is refused whole.
//   - What is fetched of an issuer (its discovery document and keys, and what those
//     lead to) takes the dialer it is given, by https only, without proxies, and is
//     read to a bound.
//   - Issuers change while the API server runs. Those that stay as they are keep their
//     keys; one that is gone is asked no more.
//
// It never decides what a user may do, never keeps a token, and never configures
// anonymous access.
package authn
