package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// PluginName is the name under which our own binary is the last CNI plugin: it
// registers a pod's endpoint with the agent and holds the pod back until its
// fence stands.
const PluginName = "sublet-cni"

// LinkPlugins puts links to the CNI plugins, and to executable as PluginName, into
// the node's plugin directory.
func LinkPlugins(l Layout, executable string) error {
	links := map[string]string{PluginName: executable}
	for _, p := range []string{"ptp", "host-local", "portmap"} {
		links[p] = l.bin(filepath.Join("cni", p))
	}
	for name, target := range links {
		path := filepath.Join(l.CNIBin(), name)
		if now, err := os.Readlink(path); err == nil && now == target {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace the CNI plugin %s: %w", name, err)
		}
		if err := os.Symlink(target, path); err != nil {
			return fmt.Errorf("link the CNI plugin %s: %w", name, err)
		}
	}
	return nil
}

// WriteNetwork writes the pod network's configuration for a pod range. containerd
// sees the file and reports the network ready; until then no pod starts. socket
// and registry are what our own plugin (host-agent/podnet, NetConf) is given.
func WriteNetwork(l Layout, pods netip.Prefix, socket, registry string) error {
	conf, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       l.Network(),
		"plugins": []any{
			// A cable from each pod to the node: no bridge between pods, so that
			// all their traffic passes the node's forward hook. ipMasq stays off:
			// which traffic leaves under the node's address is the fence's matter.
			map[string]any{"type": "ptp", "ipMasq": false, "ipam": map[string]any{
				"type": "host-local", "dataDir": l.IPAM(),
				"ranges": []any{[]any{map[string]any{"subnet": pods.String()}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			}},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}, "backend": "nftables", "snat": true},
			map[string]any{"type": PluginName, "socket": socket, "registry": registry},
		},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("render the pod network's configuration: %w", err)
	}
	path := filepath.Join(l.CNIConf(), "10-sublet.conflist")
	if now, err := os.ReadFile(path); err == nil && string(now) == string(conf) {
		return nil
	}
	return writeFile(path, conf, 0o600)
}
