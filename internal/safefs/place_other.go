//go:build unix && !linux

package safefs

import "golang.org/x/sys/unix"

// mkfifoAt reports that FIFOs can't be made below a folder's descriptor.
func mkfifoAt(int, string) error { return unix.ENOTSUP }

// SetXattr reports that extended attributes are not supported here.
func (r *Root) SetXattr(name, _ string, _ []byte) error {
	return pathErr("setxattr", name, unix.ENOTSUP)
}

// Xattrs finds no extended attributes: they are not supported here.
func (r *Root) Xattrs(string, string) (map[string][]byte, error) { return nil, nil }
