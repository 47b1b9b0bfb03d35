package oci

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/engine/internal/kept"
)

// capabilities are those of Linux, in the order of their numbers.
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// standardCaps are what root has in a container of Docker's.
var standardCaps = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// capability returns a capability's number by its name, with or without CAP_.
func capability(name string) (int, bool) {
	n := slices.Index(capabilities, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	return n, n >= 0
}

// capsFor returns the capabilities of a program, by number: none unless it is
// root, which only the operator lets it be.
func capsFor(o *Options, c *choice, uid int, unlimited bool) ([]int, error) {
	var list []int
	if uid == 0 {
		for _, name := range standardCaps {
			n, _ := capability(name)
			list = append(list, n)
		}
	}
	if unlimited && uid == 0 {
		list = list[:0]
		for n := range capabilities {
			list = append(list, n)
		}
	}
	for _, name := range c.CapAdd {
		n, known := capability(name)
		switch {
		case !known:
			return nil, kept.Invalid("options.cap_add", fmt.Errorf("%q is no capability", name))
		case !slices.ContainsFunc(o.AllowCaps, func(a string) bool { m, _ := capability(a); return m == n }):
			return nil, kept.Denied("options.cap_add", fmt.Errorf("%s: the operator does not permit it (engine.oci.allow_caps)", name))
		case uid != 0:
			return nil, kept.Unsupported("options.cap_add", errors.New("only root has capabilities, and this program is not"))
		case !slices.Contains(list, n):
			list = append(list, n)
		}
	}
	for _, name := range c.CapDrop {
		n, known := capability(name)
		if strings.EqualFold(name, "all") {
			list = nil
			continue
		}
		if !known {
			return nil, kept.Invalid("options.cap_drop", fmt.Errorf("%q is no capability", name))
		}
		list = slices.DeleteFunc(list, func(m int) bool { return m == n })
	}
	slices.Sort(list)
	return list, nil
}

// guestCaps takes away what gVisor gives nobody unless its own operator says so:
// raw sockets.
func guestCaps(c *choice, list []int) ([]int, error) {
	raw, _ := capability("NET_RAW")
	if slices.ContainsFunc(c.CapAdd, func(name string) bool { n, _ := capability(name); return n == raw }) {
		return nil, kept.Unsupported("options.cap_add", errors.New("NET_RAW: gVisor gives it to no sandbox"))
	}
	return slices.DeleteFunc(list, func(n int) bool { return n == raw }), nil
}
