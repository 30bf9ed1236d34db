// A CNI plugin that connects a virtual machine to the network of a namespace.
//
// It adds a tap device, and redirects all packets between it and the interface that the plugins
// before it have made. talosctl passes the tap device to QEMU.
package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tapName = "tap0"

func main() {
	// Both devices end with their namespace.
	nothing := func(*skel.CmdArgs) error { return nil }
	functions := skel.CNIFuncs{Add: add, Check: nothing, Del: nothing}
	skel.PluginMainFuncs(functions, version.All, "tc-redirect-tap")
}

func add(arguments *skel.CmdArgs) error {
	config := &types.PluginConf{}
	if err := json.Unmarshal(arguments.StdinData, config); err != nil {
		return err
	}
	if err := version.ParsePrevResult(config); err != nil {
		return err
	}
	result, err := current.NewResultFromResult(config.PrevResult)
	if err != nil {
		return err
	}
	err = ns.WithNetNSPath(arguments.Netns, func(ns.NetNS) error {
		interfaces, err := connect(arguments)
		result.Interfaces = append(result.Interfaces, interfaces...)
		return err
	})
	if err != nil {
		return err
	}
	return types.PrintResult(result, config.CNIVersion)
}

// connect returns the tap device, and the virtual machine's interface: it has the name of the tap
// device, the address of the redirected interface, and the container's ID for a namespace.
func connect(arguments *skel.CmdArgs) ([]*current.Interface, error) {
	link, err := netlink.LinkByName(arguments.IfName)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", arguments.IfName, err)
	}
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: tapName, MTU: link.Attrs().MTU},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR,
		Queues:    1,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("add %s: %w", tapName, err)
	}
	// The device is persistent, so QEMU can open it by its name.
	for _, queue := range tap.Fds {
		queue.Close()
	}
	made, err := netlink.LinkByName(tapName)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", tapName, err)
	}
	err = errors.Join(
		netlink.LinkSetMTU(made, link.Attrs().MTU),
		netlink.LinkSetUp(made),
		redirect(link, made),
		redirect(made, link),
	)
	return []*current.Interface{
		{Name: tapName, Mac: made.Attrs().HardwareAddr.String(), Sandbox: arguments.Netns},
		{Name: tapName, Mac: link.Attrs().HardwareAddr.String(), Sandbox: arguments.ContainerID},
	}, err
}

// redirect sends all packets that arrive at one device out of another.
func redirect(from, to netlink.Link) error {
	arrivals := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_INGRESS,
	}}
	everything := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: from.Attrs().Index,
			Parent:    arrivals.Handle,
			Protocol:  unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	}
	if err := errors.Join(netlink.QdiscAdd(arrivals), netlink.FilterAdd(everything)); err != nil {
		return fmt.Errorf("redirect %s to %s: %w", from.Attrs().Name, to.Attrs().Name, err)
	}
	return nil
}
