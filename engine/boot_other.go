//go:build !linux

package engine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// BootID returns a name for the time since the host was booted: nothing that
// ran under another one runs now.
func BootID() (string, error) {
	if runtime.GOOS == "darwin" {
		id, err := unix.Sysctl("kern.bootsessionuuid")
		if err != nil {
			return "", fmt.Errorf("boot id: %w", err)
		}
		return id, nil
	}
	t, err := unix.SysctlTimeval("kern.boottime")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return fmt.Sprintf("%d.%06d", t.Sec, t.Usec), nil
}
