package engine

import (
	"fmt"
	"os"
	"strings"
)

// BootID returns a name for the time since the host was booted: nothing that
// ran under another one runs now.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
