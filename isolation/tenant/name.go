package tenant

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// MaxName is the greatest length of a tenant's name in bytes: a tenant's name is
// a label of its server name (RFC 1035, 2.3.4).
const MaxName = 63

// hostNameHash is how many hex digits of the hash end a host name: 80 bits.
const hostNameHash = 20

// reserved names would be mistaken for the host or a part of Sublet.
var reserved = []string{"host", "sublet", "localhost", "kubernetes", "default", "all", "kube-system", "kube-public", "kube-node-lease"}

// ID is the UID of a tenant's VirtualCluster. A tenant that is deleted and made
// again under the same name has another ID, so nothing old applies to it.
type ID string

// Short returns 16 hex digits of the ID's hash: short enough for file, interface
// and chain names, long enough to be unique on a host.
func (id ID) Short() string { return digest(16, string(id)) }

// Name is the namespace and name of an object inside a tenant. It must never be
// used to address the host: that takes a [HostName].
type Name struct {
	Namespace string
	Name      string
}

// String returns the name as kubectl prints it.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// HostName is the name of an object in a tenant's host namespace.
type HostName string

// HostName maps the name of a tenant's object to its name on the host. The
// result is a valid DNS-1035 label, so it fits every kind that is synced,
// Services included.
func (id ID) HostName(n Name) HostName {
	var room [2 * 63]byte // most names fit into it, so that the result is all that is allocated
	name := readableIn(room[:], 63-1-hostNameHash, n.Namespace, "-", n.Name)
	return HostName(appendDigest(append(name, '-'), hostNameHash, string(id), n.Namespace, n.Name))
}

// HostNamespace returns the name of the host namespace that holds all objects of
// the tenant with that name and ID.
func HostNamespace(name string, id ID) string {
	return readable(hostNamespacePrefix+name, 63-17) + "-" + id.Short()
}

// ValidateName says whether name can be a tenant's: a DNS-1123 label of at most
// [MaxName] bytes that is not reserved. The error says what to change.
func ValidateName(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("invalid tenant name: it has %d characters, at most %d are allowed: choose a shorter one", len(name), MaxName)
	}
	if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
		return fmt.Errorf("invalid tenant name %q: use lower-case letters, digits and '-', beginning and ending with a letter or digit (for example \"acme\")", name)
	}
	if slices.Contains(reserved, name) || strings.HasPrefix(name, "sublet-") {
		return fmt.Errorf("reserved tenant name %q: it would be mistaken for a part of the host: choose another one", name)
	}
	return nil
}

// digest hashes parts, each with its length before it so that no two different
// lists of parts give the same input, to n hex digits.
func digest(n int, parts ...string) string { return string(appendDigest(nil, n, parts...)) }

// appendDigest appends the digest of parts.
func appendDigest(to []byte, n int, parts ...string) []byte {
	var room [256]byte // what nearly all fit into
	all := room[:0]
	for _, p := range parts {
		all = binary.BigEndian.AppendUint64(all, uint64(len(p)))
		all = append(all, p...)
	}
	sum := sha256.Sum256(all)
	return hex.AppendEncode(to, sum[:(n+1)/2])[:len(to)+n]
}

// readable shortens s to at most max bytes that can begin a DNS-1035 label.
func readable(s string, max int) string { return string(readableIn(nil, max, s)) }

// readableIn is readable of the parts in a row; the result is in room, if it fits.
func readableIn(room []byte, max int, parts ...string) []byte {
	label := room[:0]
	for _, p := range parts {
		for _, c := range []byte(strings.ToLower(p)) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
				c = '-'
			}
			if len(label) == 0 && (c < 'a' || c > 'z') {
				label = append(label, 'x')
			}
			label = append(label, c)
		}
	}
	if len(label) == 0 {
		label = append(label, 'x')
	}
	return bytes.TrimRight(label[:min(len(label), max)], "-")
}
