package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/host-agent/node"
	"sublet.dev/tenant-apiserver/manager"
)

// The address ranges of a host. They are what most clusters have.
var (
	serviceRange = netip.MustParsePrefix("10.96.0.0/12")
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
)

// hostFlags say where the server listens and by what name.
type hostFlags struct {
	apiPort, doorPort uint16
	domain            string
	perCell           int // how many tenants share a cell
	renewCells        time.Duration
	kmsSocket         string
	auditWebhook      string
}

func (f *hostFlags) add(cmd *cobra.Command) {
	cmd.Flags().Uint16Var(&f.apiPort, "host-api-port", 6443, "port of the host API")
	cmd.Flags().Uint16Var(&f.doorPort, "front-door-port", 8443, "the one port at which tenants reach their APIs")
	cmd.Flags().IntVar(&f.perCell, "tenants-per-cell", manager.DefaultPerCell, "how many tenants' control planes share a process at most; tenants stay where they are")
	addRenew(cmd, "renew-cells", &f.renewCells)
	cmd.Flags().StringVar(&f.domain, "domain", "sublet.internal", "a tenant's server name is NAME.DOMAIN; it need not be in any DNS")
	addKMS(cmd, &f.kmsSocket)
	addAuditWebhook(cmd, &f.auditWebhook)
}

// defaultRenewCells is how long a cell runs at least before one takes its place. It
// costs a second or two of processor time, and whoever connects then waits as long.
const defaultRenewCells = 5 * time.Minute

func addRenew(cmd *cobra.Command, name string, d *time.Duration) {
	cmd.Flags().DurationVar(d, name, defaultRenewCells, "how often at most a process in which all tenants sleep is replaced by a new one, which takes less memory; 0: never")
}

func (f *hostFlags) args() []string {
	args := []string{
		fmt.Sprintf("--host-api-port=%d", f.apiPort), fmt.Sprintf("--front-door-port=%d", f.doorPort), "--domain=" + f.domain,
		fmt.Sprintf("--tenants-per-cell=%d", f.perCell), "--renew-cells=" + f.renewCells.String(),
	}
	return append(append(args, kmsArgs(f.kmsSocket)...), auditWebhookArgs(f.auditWebhook)...)
}

func (f *hostFlags) complete() error {
	if f.apiPort == 0 || f.doorPort == 0 || f.apiPort == f.doorPort {
		return usageErrorf("--host-api-port and --front-door-port must be two different ports")
	}
	if f.perCell < 1 {
		return usageErrorf("--tenants-per-cell must be at least 1")
	}
	if f.renewCells < 0 {
		return usageErrorf("--renew-cells must not be negative")
	}
	if msgs := validation.IsDNS1123Subdomain(f.domain); len(msgs) > 0 {
		return usageErrorf("--domain %q is no domain name: %s", f.domain, strings.Join(msgs, "; "))
	}
	if err := checkAuditWebhook(f.auditWebhook); err != nil {
		return err
	}
	return checkKMS(f.kmsSocket)
}

// nodeFlags say which node this machine is.
type nodeFlags struct {
	name, ip, binDir string
	addr             netip.Addr // of ip
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "node-name", "", "name of this machine's node (default: the host name)")
	cmd.Flags().StringVar(&f.ip, "node-ip", "", "address of this machine's node (default: the one that the default route uses)")
}

func (f *nodeFlags) addBinDir(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.binDir, "bin-dir", "", "where containerd, runc, runsc and the CNI plugins are (default: the directory node beside this program)")
}

func (f *nodeFlags) args() []string {
	return []string{"--node-name=" + f.name, "--node-ip=" + f.addr.String()}
}

// complete fills in what was not given.
func (f *nodeFlags) complete() error {
	if f.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name, or give --node-name: %w", err)
		}
		f.name = strings.ToLower(host)
	}
	if msgs := validation.IsDNS1123Subdomain(f.name); len(msgs) > 0 {
		return usageErrorf("the node name %q is not possible (%s): give another with --node-name", f.name, strings.Join(msgs, "; "))
	}
	var err error
	if f.ip == "" {
		f.addr, err = node.DefaultIP()
		return err
	}
	if f.addr, err = netip.ParseAddr(f.ip); err != nil || !f.addr.Is4() || f.addr.IsLoopback() || f.addr.IsUnspecified() {
		return usageErrorf("--node-ip %q is not possible: give an IPv4 address of this machine that is not loopback", f.ip)
	}
	return nil
}

// completeBinDir fills in where the node's binaries are.
func (f *nodeFlags) completeBinDir() error {
	if f.binDir == "" {
		self, err := executable()
		if err != nil {
			return err
		}
		f.binDir = filepath.Join(filepath.Dir(self), "node")
	}
	abs, err := filepath.Abs(f.binDir)
	if err != nil {
		return fmt.Errorf("find --bin-dir %s: %w", f.binDir, err)
	}
	f.binDir = abs
	if _, err := os.Stat(abs); err != nil {
		return fmt.Errorf("there is no directory %s with containerd and the other binaries of a node: run `make deps`, or say with --bin-dir where they are", abs)
	}
	return nil
}

// executable returns the path of this program's file.
func executable() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	return self, nil
}
