//go:build unix

package image

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Modes returns what was seen to work here, best first: each was really done in
// the store's folder. Whether an engine can use an overlay in its sandboxes is
// for the engine to say (Lease.Mode); without root's rights that alone counts.
func (s *Store) Modes(context.Context) ([]Mode, error) { return s.modes() }

// probeModes tries the modes.
func (s *Store) probeModes() ([]Mode, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	dir := s.path(atomicfile.TempName())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, sorted(dir, err)
	}
	defer os.RemoveAll(dir)
	var modes []Mode
	if !s.opts.NoOverlay && overlays(dir) {
		modes = append(modes, ModeOverlay)
	}
	if reflinks(dir) {
		modes = append(modes, ModeReflink)
	}
	return append(modes, ModeCopy), nil
}

// reflinks reports whether files in dir can share their blocks.
func reflinks(dir string) bool {
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return false
	}
	defer root.Close()
	if err := root.WriteFile("from", []byte("probe"), 0o600, nil); err != nil {
		return false
	}
	from, err := root.Open("from")
	if err != nil {
		return false
	}
	defer from.Close()
	to, err := root.Create("to", 0o600, nil)
	if err != nil {
		return false
	}
	defer to.Close()
	return filecopy.Clone(to, from) == nil
}

// copyTree gives a lease a copy of the tree, in its own folder, under another
// name until it is complete. It returns how it was copied.
func (s *Store) copyTree(ctx context.Context, tree, dir string) (Mode, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", sorted(dir, err)
	}
	src, err := safefs.Open(tree, nil)
	if err != nil {
		return "", sorted(tree, err)
	}
	defer src.Close()
	dst, err := safefs.Open(dir, nil)
	if err != nil {
		return "", sorted(dir, err)
	}
	defer dst.Close()
	if _, err := dst.Stat(rootName); err == nil {
		return ModeCopy, nil
	}
	const temp = rootName + newSuffix
	if err := dst.RemoveAll(ctx, temp); err != nil {
		return "", sorted(dir, err)
	}
	c := &copier{ctx: ctx, src: src, dst: dst, to: temp, cloned: true, links: map[uint64]string{}}
	if err := c.run(); err != nil {
		return "", errors.Join(sorted("copy of an image", err), dst.RemoveAll(context.WithoutCancel(ctx), temp))
	}
	crash.Point(crash.CopyBefore)
	if err := dst.Rename(temp, rootName); err != nil {
		return "", sorted(dir, err)
	}
	crash.Point(crash.CopyAfter)
	if c.cloned {
		return ModeReflink, nil
	}
	return ModeCopy, nil
}

// A copier copies a tree with everything that the unpacker made in it.
type copier struct {
	ctx      context.Context
	src, dst *safefs.Root
	to       string
	cloned   bool              // all files share their blocks with the tree
	links    map[uint64]string // names in the copy of files with several names
	folders  []folderCopy
}

// folderCopy is a folder that is finished last.
type folderCopy struct {
	name string
	info safefs.Info
}

func (c *copier) run() error {
	err := c.src.Walk(c.ctx, rootName, &safefs.WalkOptions{MaxEntries: 1 << 31}, func(e *safefs.Entry) error {
		return c.entry(e, c.to+e.Path[len(rootName):])
	})
	for i := len(c.folders) - 1; i >= 0 && err == nil; i-- {
		f := &c.folders[i]
		if err = c.dst.SetMode(f.name, f.info.Mode); err == nil {
			err = c.dst.Chtimes(f.name, f.info.ModTime)
		}
	}
	return err
}

func (c *copier) entry(e *safefs.Entry, name string) error {
	var owner *safefs.Owner
	if os.Geteuid() == 0 {
		owner = &safefs.Owner{UID: e.UID, GID: e.GID}
	}
	var err error
	switch {
	case e.Mode.IsDir():
		c.folders = append(c.folders, folderCopy{name, e.Info})
		if err = c.dst.MkdirAll(name, 0o700, owner); err == nil {
			err = c.attributes(e, name)
		}
		return err
	case e.Mode&fs.ModeSymlink != 0:
		var target string
		if target, err = e.ReadLink(); err == nil {
			err = c.dst.Symlink(target, name, owner)
		}
	case e.Mode&fs.ModeNamedPipe != 0:
		err = c.dst.Mkfifo(name, e.Mode.Perm(), owner)
	case c.links[e.Ino] != "":
		return c.dst.Link(c.links[e.Ino], name)
	default:
		err = c.file(e, name, owner)
	}
	if err != nil {
		return err
	}
	return c.dst.Chtimes(name, e.ModTime)
}

func (c *copier) file(e *safefs.Entry, name string, owner *safefs.Owner) error {
	src, err := e.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := c.dst.Create(name, e.Mode, owner)
	if err != nil {
		return err
	}
	defer dst.Close()
	result, err := filecopy.Copy(c.ctx, dst, src, nil)
	if err != nil {
		return err
	}
	c.cloned = c.cloned && (result.Cloned || result.Size == 0)
	if e.Links > 1 {
		c.links[e.Ino] = name
	}
	if e.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		if err := c.dst.SetMode(name, e.Mode); err != nil {
			return err
		}
	}
	if err := c.attributes(e, name); err != nil {
		return err
	}
	return dst.Close()
}

// attributes copies the extended attributes that the unpacker has kept, as far
// as this file system has room for them.
func (c *copier) attributes(e *safefs.Entry, name string) error {
	attrs, err := c.src.Xattrs(e.Path, "user.")
	if err != nil {
		return nil // a file system without them
	}
	for attr, value := range attrs {
		_ = c.dst.SetXattr(name, attr, value)
	}
	return nil
}
