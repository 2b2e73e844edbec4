// Package pki is the certificate authority of one control plane.
//
// An Authority owns one directory with three files, each written atomically
// with mode 0600:
//
//	ca.key  the private key of the authority (ECDSA P-256, PKCS #8, PEM)
//	ca.crt  its self-signed certificate, valid for ten years
//	sa.key  the key that signs service account tokens (ECDSA P-256, PEM)
//
// Rotate puts another CA in its place; until Finish the one before is trusted, too,
// and its certificate (ca-old.crt), the new one as signed by it (ca-cross.crt) and
// both together (ca-bundle.crt) are kept beside it. A process that changes files
// holds a lock on the directory (flock(2)), and a rotation that was interrupted is
// completed, or forgotten, by whoever opens the authority next.
//
// LoadOrCreate makes what is missing and never replaces what is there: a file
// it cannot understand is an error that names the file and says what to do, because a new
// key in its place would silently lock everybody out. The order of creation is
// sa.key, ca.key, ca.crt, so that a crash in between is completed by the next
// call and never leaves a certificate without its key.
//
// Load makes nothing at all. Everything else is not stored here: serving certificates,
// client certificates and kubeconfigs are issued on demand and handed to the caller (who
// may keep a serving certificate and have it looked at again: ReuseServing), and
// an authority for another purpose is derived from sa.key, the same each time (Derive).
// Every control plane has an Authority of its own; a certificate of one is
// unknown to all others, which is what keeps tenants apart at the front door.
//
// The package knows nothing of Kubernetes' API types beyond the kubeconfig file
// format, opens no connections, and never logs key material.
package pki
