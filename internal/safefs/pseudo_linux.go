package safefs

import "golang.org/x/sys/unix"

// mqueueMagic is not among the names of x/sys.
const mqueueMagic = 0x19800202

// isPseudo reports whether an open file is on a file system that holds no data
// but shows the kernel's state.
func isPseudo(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.BPF_FS_MAGIC, mqueueMagic:
		return true
	}
	return false
}
