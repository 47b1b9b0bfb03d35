//go:build unix

package safefs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Bounds of RemoveAll.
const (
	removeBatch  = 1024 // names read at once
	removePasses = 64   // over one folder that is filled again meanwhile
	maxErrors    = 8    // that are told one by one
)

// Remove removes name if it is a file, a link or an empty folder. What is not
// there is no error.
func (r *Root) Remove(name string) error {
	dir, base, err := r.openParent("remove", name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Unlinkat(dir, base, 0)
	if info, statErr := statAt(dir, base); err != nil && statErr == nil && isDir(info.Mode) {
		err = unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return pathErr("remove", name, err)
}

// RemoveAll removes name and everything below it; for "." it empties the root
// folder. It overcomes missing permissions, immutable flags and any depth as
// far as the caller's rights go, never follows a link, and never enters what
// is mounted below. What is not there is no error. If something can't be
// removed it goes on with the rest, and the error names what is left.
func (r *Root) RemoveAll(ctx context.Context, name string) error {
	folder, first := ".", ""
	if name != "." {
		dir, base, err := r.openParent("remove", name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		unix.Close(dir)
		folder, first = name[:len(name)-len(base)], base
		if folder == "" {
			folder = "."
		} else {
			folder = folder[:len(folder)-1]
		}
	}
	strict := *r
	strict.opts.CrossMounts = false
	m := remover{ctx: ctx, only: first != ""}
	var err error
	if m.stack, err = newStack(&strict, "remove", folder); err != nil {
		return err
	}
	defer m.stack.close()
	if m.only {
		m.stack.top().names = []string{first}
	} else {
		m.loosen()
	}
	if err := m.run(); err != nil {
		return err
	}
	return m.result()
}

type remover struct {
	ctx   context.Context
	stack *stack
	only  bool // one entry of the first folder, not all of them
	errs  []error
	more  int // errors that are not in errs
}

// run works until the stack is empty: entry by entry, and a folder itself once
// it has no entries any more.
func (m *remover) run() error {
	for {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		name, err := m.next()
		if err != nil {
			m.fail("", err)
		}
		if name != "" {
			m.entry(name)
			continue
		}
		if len(m.stack.levels) == 1 {
			return nil
		}
		done := m.stack.top().name
		if err := m.stack.pop(); err != nil {
			return m.stack.err("remove", done, err)
		}
		m.folder(done)
	}
}

// next returns the name of another entry of the deepest folder, or nothing.
func (m *remover) next() (string, error) {
	top := m.stack.top()
	for len(top.names) == 0 {
		if m.only && len(m.stack.levels) == 1 {
			return "", nil
		}
		names, err := top.f.Readdirnames(removeBatch)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		for _, name := range names {
			if _, failed := top.failed[name]; !failed {
				top.names = append(top.names, name)
			}
		}
		if len(names) > 0 {
			continue
		}
		// A pass that removed entries may have missed others.
		if !top.removed {
			return "", nil
		}
		if top.passes++; top.passes > removePasses {
			return "", ErrChanged
		}
		top.removed = false
		if _, err := top.f.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
	}
	name := top.names[0]
	top.names = top.names[1:]
	return name, nil
}

// entry removes an entry of the deepest folder, or goes into it.
func (m *remover) entry(name string) {
	top, dir := m.stack.top(), m.stack.dir()
	err := unix.Unlinkat(dir, name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		err = m.hardEntry(name)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		m.fail(name, err)
		return
	}
	top.removed = true
}

// hardEntry is for an entry that a simple unlink does not remove.
func (m *remover) hardEntry(name string) error {
	dir := m.stack.dir()
	info, err := statAt(dir, name)
	if err != nil {
		return err
	}
	if isDir(info.Mode) {
		err := m.stack.push(name)
		if errors.Is(err, unix.EACCES) {
			if err = makeEnterable(m.stack.root, dir, name); err == nil {
				err = m.stack.push(name)
			}
		}
		if err == nil {
			m.loosen()
		}
		return err
	}
	m.unflag(info, name)
	return unix.Unlinkat(dir, name, 0)
}

// loosen lets its owner work in the deepest folder.
func (m *remover) loosen() {
	if top := m.stack.top(); top.id.Mode&0o700 != 0o700 {
		top.f.Chmod(0o700) // whether it helped shows when entries are removed
	}
}

// unflag takes the flags from an entry, and from the folder it is in, that keep
// even root from removing it. Whether it helped shows when the removal is tried
// again.
func (m *remover) unflag(info Info, name string) {
	if !m.only || len(m.stack.levels) > 1 {
		clearFlags(m.stack.dir())
	}
	if !info.Mode.IsRegular() && !isDir(info.Mode) {
		return
	}
	fd, err := m.stack.root.resolve(m.stack.dir(), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		clearFlags(fd)
		unix.Close(fd)
	}
}

// folder removes a folder whose entries are gone.
func (m *remover) folder(name string) {
	dir := m.stack.dir()
	err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		if info, statErr := statAt(dir, name); statErr == nil {
			m.unflag(info, name)
			err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		m.stack.top().removed = true
	case len(m.errs) > 0 && (errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)):
		m.markFailed(name) // for what is in it, which was told
	default:
		m.fail(name, err)
	}
}

func (m *remover) fail(name string, err error) {
	m.markFailed(name)
	if len(m.errs) >= maxErrors {
		m.more++
		return
	}
	if errors.Is(err, unix.EBUSY) {
		err = ErrMount
	}
	m.errs = append(m.errs, m.stack.err("remove", name, err))
}

func (m *remover) markFailed(name string) {
	top := m.stack.top()
	if top.failed == nil {
		top.failed = map[string]struct{}{}
	}
	top.failed[name] = struct{}{}
}

func (m *remover) result() error {
	if m.more > 0 {
		m.errs = append(m.errs, fmt.Errorf("and %d more", m.more))
	}
	return errors.Join(m.errs...)
}
