//go:build unix

package git

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/caissonrun/caisson/stage/internal/landing"
)

// The permission bits of files; git knows no others.
const (
	filePerm    = fs.FileMode(0o644)
	programPerm = fs.FileMode(0o755)
	folderPerm  = fs.FileMode(0o755)
)

// land makes all checkouts in the work folder, a repository before its
// submodules.
func (f *fetch) land(ctx context.Context, work *os.Root) error {
	spot, err := landing.At(f.in, work, f.env)
	if err != nil {
		return err
	}
	defer spot.Close()
	if err := spot.Root.MkdirAll(spot.Name, folderPerm, spot.Owner); err != nil {
		return err
	}
	for i := range f.checkouts {
		if err := f.landOne(ctx, spot, &f.checkouts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (f *fetch) landOne(ctx context.Context, spot *landing.Spot, c *checkout) error {
	args := []string{"archive", "--format=tar", c.commit}
	if c.folder != "." {
		// A commit with a path, and not the folder's tree, because attributes of
		// the folders above count too.
		args = append(args, "--", c.folder)
	}
	u := unpacker{fetch: f, spot: spot, checkout: c}
	return c.repo.stream(ctx, func(archive io.Reader) error { return u.unpack(ctx, archive) }, args...)
}

// An unpacker makes the files of one archive of git's.
type unpacker struct {
	*fetch
	spot     *landing.Spot
	checkout *checkout
}

func (u *unpacker) unpack(ctx context.Context, archive io.Reader) error {
	for tr := tar.NewReader(archive); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, ok := u.name(header.Name)
		if !ok {
			continue
		}
		if err := u.entry(header, name, tr); err != nil {
			return fmt.Errorf("%q: %w", header.Name, err)
		}
	}
}

// name returns where an entry lands in the work folder. What is not in the
// folder that is wanted, which are the folders above it, lands nowhere.
func (u *unpacker) name(entry string) (string, bool) {
	entry = strings.TrimSuffix(entry, "/")
	if folder := u.checkout.folder; folder != "." {
		below, ok := strings.CutPrefix(entry, folder+"/")
		if !ok {
			return "", false
		}
		entry = below
	}
	// The parts are joined as they stand: what is not clean is refused by the
	// work folder, not made clean.
	name := entry
	for _, above := range []string{u.checkout.at, u.spot.Name} {
		if above != "." {
			name = above + "/" + name
		}
	}
	return name, true
}

func (u *unpacker) entry(header *tar.Header, name string, contents io.Reader) error {
	work, owner := u.spot.Root, u.spot.Owner
	switch header.Typeflag {
	case tar.TypeDir:
		return work.MkdirAll(name, folderPerm, owner)
	case tar.TypeReg:
		return u.file(header, name, contents)
	case tar.TypeSymlink:
		if err := u.makeRoom(name); err != nil {
			return err
		}
		if err := work.Symlink(header.Linkname, name, owner); err != nil {
			return err
		}
		return work.Chtimes(name, header.ModTime)
	}
	return fmt.Errorf("git archive: an entry of type %q", header.Typeflag)
}

func (u *unpacker) file(header *tar.Header, name string, contents io.Reader) error {
	if err := u.makeRoom(name); err != nil {
		return err
	}
	perm := filePerm
	if header.FileInfo().Mode()&0o100 != 0 {
		perm = programPerm
	}
	file, err := u.spot.Root.Create(name, perm, u.spot.Owner)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(io.MultiWriter(file, u), contents); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return u.spot.Root.Chtimes(name, header.ModTime)
}

// makeRoom makes the folder that name is in, which an archive does not always
// have, and removes a file or link of that name.
func (u *unpacker) makeRoom(name string) error {
	if above := path.Dir(name); above != "." {
		if err := u.spot.Root.MkdirAll(above, folderPerm, u.spot.Owner); err != nil {
			return err
		}
	}
	info, err := u.spot.Root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode.IsDir():
		return invalid(errors.New("a folder is there already"))
	}
	return u.spot.Root.Remove(name)
}

// Write implements io.Writer: it counts the bytes of files. They may be more
// than git measured, where line ends are changed.
func (u *unpacker) Write(p []byte) (int, error) {
	u.done += int64(len(p))
	if err := landing.CheckSize(u.in, u.done); err != nil {
		return 0, err
	}
	if u.env.Progress != nil {
		u.env.Progress(u.done, max(u.all, u.done))
	}
	return len(p), nil
}
