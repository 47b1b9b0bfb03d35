package bind

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// showsOtherIDs reports whether the file system of a path is certain to be able
// to show its files with other ids, as an idmapped mount. Engines change the
// owner of files where it is not.
func showsOtherIDs(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil || !kernelAtLeast(5, 15) {
		return false
	}
	return slices.Contains([]int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC}, int64(st.Type))
}

// kernelAtLeast reports whether the running kernel is of a version or newer.
func kernelAtLeast(major, minor int) bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var a, b int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
