package kept

import (
	"context"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/safefs"
)

// FS implements engine.Filer. It also shows what is mounted in the sandbox.
func (f filed) FS(ctx context.Context) (engine.FS, error) {
	if f.b.opts.Guests {
		return f.guestFS(ctx)
	}
	root, err := f.root(ctx)
	if err != nil {
		return nil, err
	}
	return root.FS(), nil
}

// Tar implements engine.Filer.
func (f filed) Tar(ctx context.Context, name string, w io.Writer) error {
	if f.b.opts.Guests {
		return f.guestTar(ctx, name, w)
	}
	return f.at(ctx, name, func(root *safefs.Root, name string) error { return root.Tar(ctx, name, w) })
}

// Put implements engine.Filer.
func (f filed) Put(ctx context.Context, name string, r io.Reader) error {
	if f.b.opts.Guests {
		return f.guestPut(ctx, name, r)
	}
	main, err := readProgram(f.rec.Run)
	if err != nil {
		return f.said(caisson.OpFiles, err)
	}
	return f.at(ctx, name, func(root *safefs.Root, name string) error {
		return asUser(main.UID, main.GID, func() error { return root.Untar(ctx, name, r, nil) })
	})
}

// at calls do with the root folder and a name without links.
func (s *sandbox) at(ctx context.Context, name string, do func(root *safefs.Root, name string) error) error {
	root, err := s.root(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	clean, err := cleanName(name)
	if err == nil {
		clean, err = root.FS().Resolve(clean)
	}
	if err == nil {
		err = do(root, clean)
	}
	return safefs.Sorted(caisson.OpFiles, name, err)
}

// cleanName returns a name below the root.
func cleanName(name string) (string, error) {
	clean := strings.Trim(name, "/")
	if clean == "" {
		clean = "."
	}
	if fs.ValidPath(clean) {
		return clean, nil
	}
	// Package fs refuses names that are not UTF-8; files may have them.
	return clean, checkName(clean)
}

// checkName refuses what is not a name of a file below a folder.
func checkName(name string) error {
	bad := strings.ContainsRune(name, 0)
	for element := range strings.SplitSeq(name, "/") {
		bad = bad || element == "" || element == "." || element == ".."
	}
	if bad {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// root opens the sandbox's root folder.
func (s *sandbox) root(ctx context.Context) (*safefs.Root, error) {
	if err := s.alive(caisson.OpFiles); err != nil {
		return nil, err
	}
	if s.keeper() == nil {
		return nil, s.lostBefore(caisson.OpFiles)
	}
	file, err := s.keeper().Root(ctx)
	if err != nil {
		return nil, s.said(caisson.OpFiles, err)
	}
	root, err := safefs.FromFile(file, &safefs.Options{CrossMounts: true})
	return root, s.said(caisson.OpFiles, err)
}

// onThread calls f on an OS thread of its own, which ends with it: whatever f
// makes of it, nobody else meets.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}
