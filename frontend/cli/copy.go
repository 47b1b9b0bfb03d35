package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

func (c *command) copyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp ID:PATH DEST|- | cp SRC|- ID:PATH",
		Short: "copy files out of a sandbox or into it",
		Long: "Copy a file or folder out of a task's sandbox, or into it. Relative paths in the\n" +
			"sandbox start at the work folder. If DEST is a folder, the copy appears in it,\n" +
			"otherwise as it. With - a tar stream goes to stdout or comes from stdin. After\n" +
			"the task's end it works as long as its sandbox or its files are kept, see --keep.",
		Example: "  caisson cp 01h9:out/x .\n  caisson cp 01h9:/etc/passwd - | tar -t\n  caisson cp ./data 01h9:in/",
		Args:    exactly(2, "ID:PATH DEST or SRC ID:PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.copy(ctx, cmd, args[0], args[1]))
		},
	}
}

func (c *command) copy(ctx context.Context, cmd *cobra.Command, from, to string) error {
	fromID, inside, out := splitPlace(from)
	toID, target, in := splitPlace(to)
	if out == in {
		return usageError(cmd, fmt.Errorf("exactly one of both must be ID:PATH"))
	}
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	if out {
		id, err := host.task(ctx, fromID)
		if err != nil {
			return err
		}
		return c.copyOut(ctx, host, place{id, inside}, to)
	}
	id, err := host.task(ctx, toID)
	if err != nil {
		return err
	}
	return c.copyIn(ctx, host, from, place{id, target})
}

// A place is a path in a task's sandbox.
type place struct{ id, path string }

// splitPlace tells ID:PATH from a path here: what is before the colon has no
// slash, so a path with a colon can be written ./a:b.
func splitPlace(arg string) (id, inside string, ok bool) {
	id, inside, ok = strings.Cut(arg, ":")
	if !ok || id == "" || strings.ContainsAny(id, "/.") {
		return "", "", false
	}
	if inside == "" {
		inside = "."
	}
	return id, inside, true
}

// copyOut unpacks the tar stream of a place below dest's folder, giving its
// first element the name that dest asks for.
func (c *command) copyOut(ctx context.Context, host *Host, from place, dest string) error {
	if dest == "-" {
		return host.Executor.CopyOut(ctx, from.id, from.path, c.caller.Stdout)
	}
	dir, name := filepath.Dir(dest), filepath.Base(dest)
	if info, err := os.Stat(dest); err == nil && info.IsDir() {
		dir, name = dest, ""
	} else if strings.HasSuffix(dest, "/") {
		return &caisson.Error{Op: "cp", Item: dest, Kind: caisson.ErrNotFound, Err: errors.New("no such folder, make it first")}
	}
	if err := checkFolder(dir); err != nil {
		return err
	}
	root, err := safefs.Open(dir, &safefs.Options{CrossMounts: true})
	if err != nil {
		return err
	}
	defer root.Close()
	return pipe(
		func(w io.Writer) error { return host.Executor.CopyOut(ctx, from.id, from.path, w) },
		func(r io.Reader) error {
			return pipe(
				func(w io.Writer) error { return renameTar(w, r, name, c.leaveOut) },
				func(r io.Reader) error { return root.Untar(ctx, ".", r, nil) },
			)
		})
}

// checkFolder says in few words why nothing can be written to dir.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case os.IsNotExist(err):
		return &caisson.Error{Op: "cp", Item: dir, Kind: caisson.ErrNotFound, Err: errors.New("no such folder, make it first")}
	case err != nil:
		return err
	case !info.IsDir():
		return &caisson.Error{Op: "cp", Item: dir, Kind: caisson.ErrInvalid, Err: errors.New("not a folder")}
	}
	return nil
}

// copyIn packs src and unpacks it in the sandbox.
func (c *command) copyIn(ctx context.Context, host *Host, src string, to place) error {
	if src == "-" {
		return host.Executor.CopyIn(ctx, to.id, to.path, c.caller.Stdin)
	}
	if _, err := os.Lstat(src); os.IsNotExist(err) {
		return &caisson.Error{Op: "cp", Item: src, Kind: caisson.ErrNotFound, Err: errors.New("no such file or folder")}
	}
	root, err := safefs.Open(filepath.Dir(src), &safefs.Options{CrossMounts: true})
	if err != nil {
		return err
	}
	defer root.Close()
	dir, name := to.path, ""
	if !strings.HasSuffix(to.path, "/") && !host.isFolder(ctx, to) {
		dir, name = path.Dir(to.path), path.Base(to.path)
	}
	return pipe(
		func(w io.Writer) error { return root.Tar(ctx, filepath.Base(src), w) },
		func(r io.Reader) error {
			return pipe(
				func(w io.Writer) error { return renameTar(w, r, name, c.leaveOut) },
				func(r io.Reader) error { return host.Executor.CopyIn(ctx, to.id, dir, r) },
			)
		})
}

// isFolder reports whether a place is a folder, by the head of its tar stream.
func (h *Host) isFolder(ctx context.Context, p place) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	folder := false
	_ = pipe(
		func(w io.Writer) error { return h.Executor.CopyOut(ctx, p.id, p.path, w) },
		func(r io.Reader) error {
			header, err := tar.NewReader(r).Next()
			folder = err == nil && header.Typeflag == tar.TypeDir
			return errEnough
		})
	return folder
}

// errEnough ends a stream whose rest nobody wants.
var errEnough = errors.New("enough")

// pipe runs a writer and a reader of one stream side by side. The error of the
// one that failed first is returned.
func pipe(write func(io.Writer) error, read func(io.Reader) error) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		written <- err
	}()
	err := read(r)
	if err == nil {
		// What follows a tar stream's end is padding.
		_, err = io.Copy(io.Discard, r)
	}
	r.CloseWithError(orEnough(err))
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errEnough) && (err == nil || !errors.Is(writeErr, err)) {
		return writeErr
	}
	return err
}

func orEnough(err error) error {
	if err == nil {
		return errEnough
	}
	return err
}

// renameTar copies a tar stream, giving the first element of all names the
// name; empty leaves it. A symbolic link that leads out of what is copied
// would mean something else at its new place: it is left out, and leftOut is
// told.
func renameTar(w io.Writer, r io.Reader, name string, leftOut func(link, target string)) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		header, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeSymlink && !safefs.LinkInside(path.Clean(header.Name), header.Linkname) {
			leftOut(header.Name, header.Linkname)
			continue
		}
		// The task doesn't decide who else on this host may write.
		header.Mode &^= 0o022
		header.Name = renamed(header.Name, name)
		if header.Typeflag == tar.TypeLink {
			header.Linkname = renamed(header.Linkname, name)
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// leaveOut says that a link was not copied.
func (c *command) leaveOut(link, target string) {
	fmt.Fprintf(c.caller.Stderr, "caisson: cp: %s: left out: it leads out, to %s\n", oneLine(link), oneLine(target))
}

func renamed(entry, name string) string {
	if name == "" {
		return entry
	}
	entry = strings.TrimPrefix(entry, "./")
	_, rest, _ := strings.Cut(entry, "/")
	if strings.HasSuffix(entry, "/") && rest == "" {
		return name + "/"
	}
	return path.Join(name, rest)
}
