package docker

import (
	"strings"

	"golang.org/x/sys/unix"
)

// openInside opens a folder of a container by its root. No link of the image's
// leads out of that.
func openInside(root int, path string) (int, error) {
	return unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}
