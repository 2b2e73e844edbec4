package podnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// PluginName is the plugin's type in a CNI configuration, and the name of its
// executable.
const PluginName = "sublet-cni"

// patience is how long the plugin waits for the agent. The kubelet tries again
// later, so it need not be long.
const patience = 30 * time.Second

// NetConf is the plugin's part of a CNI configuration list.
type NetConf struct {
	types.PluginConf
	// Socket is where the agent's Server listens.
	Socket string `json:"socket"`
	// Registry is the folder of the agent's Registry.
	Registry string `json:"registry"`
}

// PluginMain is the main function of the CNI plugin. It speaks CNI 0.4.0 to 1.1.0 on
// its environment, standard input and output, and exits.
func PluginMain() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:   func(args *skel.CmdArgs) error { return add(context.Background(), args) },
		Del:   func(args *skel.CmdArgs) error { return del(context.Background(), args) },
		Check: func(args *skel.CmdArgs) error { return check(context.Background(), args) },
		GC:    func(*skel.CmdArgs) error { return nil },
		Status: func(args *skel.CmdArgs) error {
			_, err := parse(args.StdinData)
			return err
		},
	}, version.All, PluginName+": joins pods to Sublet's network fence")
}

func parse(stdin []byte) (NetConf, error) {
	var c NetConf
	if err := json.Unmarshal(stdin, &c); err != nil {
		return NetConf{}, fmt.Errorf("%s: parse the network configuration: %w", PluginName, err)
	}
	if c.Socket == "" || c.Registry == "" {
		return NetConf{}, fmt.Errorf("%s: the network configuration has no socket or no registry", PluginName)
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return NetConf{}, fmt.Errorf("%s: parse the result of the plugin before: %w", PluginName, err)
	}
	return c, nil
}

// add registers the sandbox's endpoint and prints the previous plugin's result once
// the fence is in the kernel.
func add(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		return fmt.Errorf("%s must come after the plugin that makes the interface", PluginName)
	}
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return fmt.Errorf("%s: read the result of the plugin before: %w", PluginName, err)
	}
	e, err := endpoint(args, result)
	if err != nil {
		return fmt.Errorf("%s: %w", PluginName, err)
	}
	if err := c.call(ctx, http.MethodPut, e.ContainerID, e); err != nil {
		return fmt.Errorf("%s: the pod has no fence yet: %w", PluginName, err)
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

// del unregisters the endpoint. Without an agent it leaves word for the next one:
// the pod's network goes away all the same.
func del(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if !validID.MatchString(args.ContainerID) {
		return fmt.Errorf("%s: invalid container id %q", PluginName, args.ContainerID)
	}
	err = c.call(ctx, http.MethodDelete, args.ContainerID, nil)
	var unreachable *net.OpError
	if errors.As(err, &unreachable) {
		return c.leaveWord(args.ContainerID)
	}
	return err
}

func (c NetConf) leaveWord(id string) error {
	err := os.WriteFile(filepath.Join(c.Registry, id+gone), nil, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no registry, no endpoint
	}
	return err
}

// check fails unless the agent knows the endpoint.
func check(ctx context.Context, args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodGet, args.ContainerID, nil)
}

// endpoint reads what the runtime and the plugins before say of the sandbox.
func endpoint(args *skel.CmdArgs, result *current.Result) (Endpoint, error) {
	e := Endpoint{ContainerID: args.ContainerID}
	for pair := range strings.SplitSeq(args.Args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			e.Namespace = value
		case "K8S_POD_NAME":
			e.Pod = value
		case "K8S_POD_UID":
			e.UID = value
		}
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			e.Interface = i.Name
		}
	}
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return Endpoint{}, fmt.Errorf("the plugin before gave an address that is none: %v", ip.Address)
		}
		e.Addresses = append(e.Addresses, a.Unmap())
	}
	return e, e.validate()
}

// call asks the agent.
func (c NetConf) call(ctx context.Context, method, id string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent/endpoints/"+id, bytes.NewReader(b))
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		why, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return errors.Join(errors.New(strings.TrimSpace(string(why))), err)
	}
	return nil
}
