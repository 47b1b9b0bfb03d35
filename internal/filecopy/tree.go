//go:build unix

package filecopy

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/caissonrun/caisson/internal/safefs"
)

// A Tree says how a folder is copied.
type Tree struct {
	Src  *safefs.Root
	From string // the folder, in Src
	Dst  *safefs.Root
	To   string // what it becomes in Dst; folders that are there are merged

	Owner *safefs.Owner // of everything made; nil: the caller
	// Perm changes the permission bits of files; nil: they stay. Folders stay
	// writable for their owner, who may be the one that removes them.
	Perm func(fs.FileMode) fs.FileMode
	// Skip leaves out what is no file, folder or link, in place of failing.
	Skip bool
	// Progress is called with the number of bytes done since its last call.
	Progress func(n int64)
}

// Copy copies the folder: files, folders, and links as they are. Times of files
// stay, set-id bits do not. Errors: safefs.ErrType for anything special.
func (t *Tree) Copy(ctx context.Context) error {
	return t.Src.Walk(ctx, t.From, nil, func(e *safefs.Entry) error {
		below := e.Path
		if t.From != "." {
			below = strings.TrimPrefix(e.Path, t.From)
		}
		return t.entry(ctx, e, path.Join(t.To, below))
	})
}

func (t *Tree) entry(ctx context.Context, e *safefs.Entry, name string) error {
	switch {
	case e.Mode.IsDir():
		return t.Dst.MkdirAll(name, e.Mode.Perm()|0o700, t.Owner)
	case e.Mode.Type() == fs.ModeSymlink:
		target, err := e.ReadLink()
		if err != nil {
			return err
		}
		return errors.Join(t.Dst.Remove(name), t.Dst.Symlink(target, name, t.Owner))
	case t.Skip && !e.Mode.IsRegular():
		return nil
	}
	src, err := e.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	perm := e.Mode.Perm()
	if t.Perm != nil {
		perm = t.Perm(perm)
	}
	dst, err := t.Dst.CreateTemp(name, perm, t.Owner)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := Copy(ctx, dst.File, src, &Options{Progress: t.Progress}); err != nil {
		return err
	}
	if err := dst.Commit(false); err != nil {
		return err
	}
	return t.Dst.Chtimes(name, e.ModTime)
}
