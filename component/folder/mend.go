//go:build unix

package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Mend gives everything in the folder back to its owner and makes it readable
// and writable for him, without following a link: after each step that may have
// run as another user. Mine says which users the step may have been; nil: only
// the owner. A file with more names than one that is none of theirs, such as one
// that PutFile has linked, stays as it is.
//
// Errors: ErrInvalid if there are more than MaxFiles files; others are the
// application's.
func (f *Folder) Mend(ctx context.Context, mine func(uid, gid int) bool) error {
	m := mender{f: f, mine: mine, owner: safefs.Owner{UID: os.Geteuid(), GID: os.Getegid()}}
	if f.opts.Owner != nil {
		m.owner = *f.opts.Owner
	}
	for _, dir := range []string{"data", "tmp"} {
		if err := m.mend(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

type mender struct {
	f     *Folder
	owner safefs.Owner
	mine  func(uid, gid int) bool
	given bool // something is not the owner's, or has set-id bits
}

func (m *mender) mend(ctx context.Context, dir string) error {
	m.given = false
	err := m.f.root.Walk(ctx, dir, &safefs.WalkOptions{MaxEntries: MaxFiles}, m.mode)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, safefs.ErrTooMany):
		return invalid(caisson.OpStageOut, dir, "has more than %d files and folders", MaxFiles)
	case err != nil:
		return notMended(dir, err)
	}
	// Only the host's root can give anything away; for others all belongs to
	// the owner, or the engine has seen to it.
	if os.Geteuid() != 0 || !m.given {
		return nil
	}
	err = m.f.root.ChownAll(ctx, dir, m.owner, m.mine)
	if err == nil || m.onlyLinked(ctx, dir) {
		return nil
	}
	return notMended(dir, err)
}

func notMended(dir string, err error) error {
	err = safefs.Sorted(caisson.OpStageOut, dir, err)
	return component.Application(fmt.Errorf("permissions could not be normalised: %w", err))
}

// mode adds u+rwX, and sees whose it is. A folder gets it before it is entered.
func (m *mender) mode(e *safefs.Entry) error {
	if e.UID != m.owner.UID || e.GID != m.owner.GID || e.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		m.given = true
	}
	want := e.Mode.Perm() | 0o600
	switch {
	case e.Mode.IsDir():
		want |= 0o100
	case !e.Mode.IsRegular() || m.foreign(e):
		return nil
	}
	if want == e.Mode.Perm() {
		return nil
	}
	err := m.f.root.Chmod(e.Path, want)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// foreign reports whether a file is, by another name, somebody else's.
func (m *mender) foreign(e *safefs.Entry) bool {
	ours := e.UID == m.owner.UID || m.mine != nil && m.mine(e.UID, e.GID)
	return e.Mode.IsRegular() && e.Links > 1 && !ours
}

// onlyLinked reports whether all that does not belong to the owner is foreign.
func (m *mender) onlyLinked(ctx context.Context, dir string) bool {
	err := m.f.root.Walk(ctx, dir, &safefs.WalkOptions{MaxEntries: MaxFiles}, func(e *safefs.Entry) error {
		if e.UID != m.owner.UID && !m.foreign(e) {
			return safefs.ErrChanged
		}
		return nil
	})
	return err == nil
}
