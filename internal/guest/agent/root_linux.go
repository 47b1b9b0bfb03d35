package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The agent stays in the root that it was started in. What OpRoot names is the root
// of programs and of files only: its links are followed as if nothing were above it.

// setRoot serves wire.OpRoot.
func (s *session) setRoot(p *wire.Path) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := path.Clean(string(p.Path))
	switch {
	case s.box != nil:
		return errSetUp
	case !s.init:
		return errNotFirst
	}
	info, err := os.Lstat(name)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return sorted(name, err)
	}
	s.root = name
	return nil
}

// errSetUp says that it is too late.
var errSetUp = &caisson.Error{Kind: caisson.ErrExists, Err: errors.New("programs have been set up already")}

// openRoot opens the root that programs see.
func (a *agent) openRoot() (*safefs.Root, error) {
	a.mu.Lock()
	root := a.root
	a.mu.Unlock()
	return safefs.Open(root, &safefs.Options{CrossMounts: true})
}

// openFolder opens the folder that name leads to below a root, and makes it with
// those above it where they are missing.
func openFolder(root *safefs.Root, name string) (*safefs.Root, error) {
	name = landing(root, name)
	dir, err := root.SubIn(name)
	if !errors.Is(err, fs.ErrNotExist) || name == "." {
		return dir, err
	}
	above, err := openFolder(root, path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	base := path.Base(name)
	if err := above.MkdirAll(base, 0o755, nil); err != nil {
		return nil, err
	}
	return above.Sub(base)
}

// maxLinks is how many links a name may lead through.
const maxLinks = 40

// landing returns where a name leads to that is not there, if it is that of a link.
func landing(root *safefs.Root, name string) string {
	for range maxLinks {
		dir, err := root.FS().Resolve(path.Dir(name))
		if err != nil {
			return name
		}
		real := path.Join(dir, path.Base(name))
		target, err := root.ReadLink(real)
		if err != nil {
			return name
		}
		if !path.IsAbs(target) {
			target = path.Join("/", dir, target)
		}
		// It never leads above the root.
		name = clean(wire.Name(path.Join("/", target)))
	}
	return name
}

// openTarget opens what is mounted on, below a root, and makes it where it is
// missing: a folder, or a file.
func openTarget(root, name string, folder bool) (int, error) {
	at, err := openIn(root, name)
	if err != unix.ENOENT {
		return at, err
	}
	r, err := safefs.Open(root, &safefs.Options{CrossMounts: true})
	if err != nil {
		return -1, err
	}
	defer r.Close()
	name = landing(r, clean(wire.Name(name)))
	if folder {
		dir, err := openFolder(r, name)
		if err != nil {
			return -1, err
		}
		dir.Close()
		return openIn(root, name)
	}
	dir, err := openFolder(r, path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	f, err := dir.Create(path.Base(name), 0o644, nil)
	if err != nil {
		return -1, err
	}
	f.Close()
	return openIn(root, name)
}

// openIn opens what a path leads to below a root, and nothing else.
func openIn(root, name string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, clean(wire.Name(name)), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// procPath is the path of what a descriptor leads to.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
