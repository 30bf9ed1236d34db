// Package capability tells whether this process may have a Linux capability.
package capability

import (
	"os"
	"strconv"
	"strings"
)

// SysResource is the number of CAP_SYS_RESOURCE.
const SysResource = 24

// IsAvailable reports whether a capability is in the bounding set of this process.
func IsAvailable(number uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if hex, found := strings.CutPrefix(line, "CapBnd:"); found {
			bounding, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && bounding>>number&1 == 1
		}
	}
	return false
}
