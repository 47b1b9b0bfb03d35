package image

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/thread"
)

// overlays reports whether a folder in dir can be an overlay's lower one. As
// root an overlay is really mounted, in a mount namespace of a thread that then
// ends with it, so that the host never sees it. Without root's rights a user
// namespace would be needed, which only a new process can have: the engine, that
// makes one for each sandbox, has tried it.
func overlays(dir string) bool {
	if os.Geteuid() != 0 {
		return true
	}
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if os.Mkdir(filepath.Join(dir, name), 0o700) != nil {
			return false
		}
	}
	if os.WriteFile(filepath.Join(dir, "lower", "file"), []byte("x"), 0o600) != nil {
		return false
	}
	return thread.Spend(func() error { return mountOverlay(dir) }) == nil
}

// mountOverlay mounts an overlay on a file system of its own in memory, with
// dir's lower folder, and looks into it.
func mountOverlay(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	// The upper folder is elsewhere when a sandbox is made: only the lower one's
	// file system is tried.
	if err := unix.Mount("caisson-probe", "upper", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"); err != nil {
		return err
	}
	for _, name := range []string{"upper/upper", "upper/work"} {
		if err := unix.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("caisson-probe", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper/upper,workdir=upper/work"); err != nil {
		return err
	}
	fd, err := unix.Open("merged/file", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
