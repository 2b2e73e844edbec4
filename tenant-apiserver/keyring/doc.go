// Package keyring has the keys with which the values of one store are encrypted,
// and encrypts and decrypts them as upstream's storage code asks for it.
//
// A Ring owns one file, mode 0600, replaced as a whole with every change:
//
//	{"format":1, "write":"2", "keys":[{"id":"1",…,"secret":…}, {"id":"2",…}]}
//
// The secret of a key is 32 random bytes. With a KMS the file has what the KMS made
// of them instead, and only the KMS can turn that back: without it no store starts.
// The file belongs outside of what it protects: never beside the store in a backup.
//
// # A value
//
//	k8s:enc:aesgcm-hkdf:v1:<key id>: | 32 random bytes | 12 byte nonce | AES-256-GCM
//
// The cipher is upstream's extended-nonce AES-GCM (KEP-3299): a key of its own for
// every value, derived from the secret and the random bytes, so that no number of
// writes wears the secret out. The authenticated data is the whole storage key: a
// value that is moved to another key does not decrypt. Storage keys, sizes, revisions
// and times stay readable.
//
// # The way of a rotation
//
//	Add     a new key, for reading       |
//	Use     new values are under it      | each step is on disk before the next,
//	...     the caller rewrites all      | and Unfinished says that there is more
//	Drop    only the key in use is left  |
//
// A store that was not encrypted is taken over the same way, with AcceptPlaintext in
// place of Add. After Drop, values under other keys and plain ones are errors.
//
// The package never logs a key, never makes a key in place of one that is missing or
// damaged, and starts no goroutines but those of ConnectKMS.
package keyring
