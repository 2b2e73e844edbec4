package netpol

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sublet.dev/host-agent/nft"
)

// dormantLine stands among the lines of a table whose chains are all switched off:
// of that the rules themselves show nothing.
const dormantLine = "table " + TableName + " flag dormant"

// readLines returns the kernel's table as lines.
func readLines(ctx context.Context, kernel *nft.Kernel) ([]string, error) {
	read, err := kernel.Read(ctx)
	if err != nil {
		return nil, err
	}
	lines := read.Lines()
	asleep, err := dormant()
	if asleep {
		lines = append(lines, dormantLine)
	}
	return lines, err
}

// generation returns the number that the kernel gives to the rules of the caller's
// network namespace: whoever changes any of them, in any table, makes it another.
func generation() (uint32, error) {
	attrs, err := ask(unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of the rules: %w", err)
	}
	id := attrs[unix.NFTA_GEN_ID]
	if len(id) != 4 {
		return 0, fmt.Errorf("ask for the generation of the rules: the kernel gives none")
	}
	return binary.BigEndian.Uint32(id), nil
}

// dormant says whether our table is there and switched off.
func dormant() (bool, error) {
	attrs, err := ask(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(TableName)))
	if err != nil {
		return false, fmt.Errorf("ask for the flags of table %s: %w", TableName, err)
	}
	flags := attrs[unix.NFTA_TABLE_FLAGS]
	return len(flags) == 4 && binary.BigEndian.Uint32(flags)&unix.NFT_TABLE_F_DORMANT != 0, nil
}

// ask puts one question to nf_tables, as `nft` would, and returns the attributes of
// the answer.
func ask(message, family int, attrs ...*nl.RtAttr) (map[uint16][]byte, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, 0)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		request.AddData(a)
	}
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 || len(answers[0]) < nl.SizeofNfgenmsg {
		return nil, fmt.Errorf("nf_tables gave %d answers", len(answers))
	}
	parsed, err := nl.ParseRouteAttr(answers[0][nl.SizeofNfgenmsg:])
	if err != nil {
		return nil, err
	}
	out := make(map[uint16][]byte, len(parsed))
	for _, a := range parsed {
		out[a.Attr.Type] = a.Value
	}
	return out, nil
}
