// Starts Talos's init on machines that lack CAP_SYS_RESOURCE, as some virtual machines do.
//
// Talos lowers the OOM scores of its services. That needs CAP_SYS_RESOURCE, and Talos gives up if
// it is refused, except in a user namespace. So process 1 is made to look as if it ran in one: its
// uid_map is covered by a file that maps one ID less. With the capability, nothing is changed.
package main

import (
	"fmt"
	"os"
	"syscall"

	"toolchain/talos-helpers/capability"
)

const (
	talosInit = "/sbin/init"
	uidMap    = "/run/uid_map"
)

func main() {
	if !capability.IsAvailable(capability.SysResource) {
		if err := coverUIDMap(); err != nil {
			fmt.Fprintln(os.Stderr, "talos-preinit: cover /proc/1/uid_map:", err)
			os.Exit(1)
		}
	}
	err := syscall.Exec(talosInit, append([]string{talosInit}, os.Args[1:]...), os.Environ())
	fmt.Fprintln(os.Stderr, "talos-preinit: start", talosInit+":", err)
	os.Exit(1)
}

func coverUIDMap() error {
	if err := os.WriteFile(uidMap, []byte("0 0 4294967294\n"), 0o444); err != nil {
		return err
	}
	return syscall.Mount(uidMap, "/proc/1/uid_map", "", syscall.MS_BIND, "")
}
