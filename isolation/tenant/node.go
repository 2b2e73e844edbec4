package tenant

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// AnnotationExternalName holds, on the headless host Service that stands for a
// tenant's Service of type ExternalName, the DNS name that the tenant's Service is
// an alias of, as the tenant chose it.
const AnnotationExternalName = Domain + "/external-name"

// NodeName returns the name under which the tenant knows a host node. It is stable
// and tells neither the host's name nor, to two tenants that compare, that they
// are on the same node.
func (id ID) NodeName(hostNode string) string { return "node-" + digest(8, string(id), hostNode) }

// nodeAddresses is where the addresses lie by which tenants know the nodes: a range that
// is set apart for tests of network devices (RFC 2544), so it is nobody's.
var nodeAddresses = netip.MustParsePrefix("198.18.0.0/15")

// NodeAddress returns the address of the node that a tenant knows by a name.
func NodeAddress(nodeName string) netip.Addr {
	hash := sha256.Sum256([]byte(nodeName))
	base := nodeAddresses.Addr().As4()
	hostBits := uint32(1)<<(32-nodeAddresses.Bits()) - 1
	n := binary.BigEndian.Uint32(base[:]) | binary.BigEndian.Uint32(hash[:4])&hostBits
	var address [4]byte
	binary.BigEndian.PutUint32(address[:], n)
	return netip.AddrFrom4(address)
}
