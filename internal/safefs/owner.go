//go:build unix

package safefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// An Owner is who a file belongs to.
type Owner struct{ UID, GID int }

// A sharedError says that a file was not given away.
type sharedError struct{ links uint64 }

func (e *sharedError) Error() string {
	return fmt.Sprintf("not given away: it has %d names and belongs to somebody else", e.links)
}

// ChownAll gives name and everything below it, links themselves too, to owner,
// and takes set-id bits from files. What is mounted below is ErrMount.
//
// A file that has more names than one may have some outside of the tree, put
// there to have the caller give away what is not the task's. It is given away
// only if mine says that its owner is one of the task's; a nil mine says so
// for nobody. Everything else is done all the same, and the error names the
// files.
func (r *Root) ChownAll(ctx context.Context, name string, owner Owner, mine func(uid, gid int) bool) error {
	strict := *r
	strict.opts.CrossMounts = false
	var errs []error
	opts := &WalkOptions{MaxEntries: 1 << 31}
	err := strict.Walk(ctx, name, opts, func(e *Entry) error {
		err := strict.chownEntry(e, owner, mine)
		var shared *sharedError
		if errors.As(err, &shared) {
			if len(errs) < maxErrors {
				errs = append(errs, err)
			}
			return nil
		}
		return err
	})
	return errors.Join(append(errs, err)...)
}

func (r *Root) chownEntry(e *Entry, owner Owner, mine func(uid, gid int) bool) error {
	if e.UID == owner.UID && e.GID == owner.GID && !hasSetID(e.Mode) {
		return nil
	}
	var err error
	if e.dir < 0 {
		err = r.use(func(fd int) error { return chownPlace(r, fd, ".", owner, mine) })
	} else {
		err = chownPlace(r, e.dir, e.Name, owner, mine)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return pathErr("chown", shorten(e.Path), err)
}

// mayGive says whether the file can be given to owner.
func mayGive(info *Info, owner Owner, mine func(uid, gid int) bool) error {
	if isDir(info.Mode) || info.Links <= 1 || info.UID == owner.UID && info.GID == owner.GID {
		return nil
	}
	if mine != nil && mine(info.UID, info.GID) {
		return nil
	}
	return &sharedError{links: info.Links}
}

func hasSetID(mode fs.FileMode) bool {
	return mode.IsRegular() && mode&(fs.ModeSetuid|fs.ModeSetgid) != 0
}
