//go:build unix

package safefs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// UntarOptions says how Untar makes files.
type UntarOptions struct {
	Owner      *Owner // of everything made; nil: the caller
	MaxBytes   int64  // of all contents together; 0: no limit
	MaxEntries int    // 0: DefaultMaxEntries
	// AnyLink takes links wherever they lead, as they are. It is for folders that
	// nobody reads but through a Root or inside of a sandbox. Entries below a
	// link are refused all the same.
	AnyLink bool
}

// maxName is how long a name in an archive may be: what a program could use.
const maxName = 4095

// Untar unpacks a tar stream below the folder name, which exists. Files, and
// links, replace what has their name; folders are merged. Owners in the stream
// do not count, set-id bits are left out.
//
// Errors: an error with fs.ErrInvalid, naming the entry, for names that are
// absolute or have "..", for devices, sockets and FIFOs, for links that lead
// out of the folder (but see AnyLink) or stand in another entry's path, and for
// a stream that is damaged or cut off; ErrTooMany. What came before stays.
func (r *Root) Untar(ctx context.Context, name string, rd io.Reader, opts *UntarOptions) error {
	dst, err := r.Sub(name)
	if err != nil {
		return err
	}
	defer dst.Close()
	u := untarrer{ctx: ctx, dst: dst, in: counter{r: &contextReader{ctx, rd}}}
	u.tr = tar.NewReader(&u.in)
	if opts != nil {
		u.UntarOptions = *opts
	}
	if u.MaxEntries == 0 {
		u.MaxEntries = DefaultMaxEntries
	}
	if err := u.run(); err != nil {
		return err
	}
	return u.finish()
}

type untarrer struct {
	UntarOptions
	ctx     context.Context
	dst     *Root
	in      counter
	tr      *tar.Reader
	bytes   int64
	entries int
	folders []tar.Header // whose mode and time are set last
}

func (u *untarrer) run() error {
	for {
		before := u.in.n
		header, err := u.tr.Next()
		if errors.Is(err, io.EOF) {
			return u.ended(u.in.n - before)
		}
		if err != nil {
			return u.damaged(err)
		}
		if u.entries++; u.entries > u.MaxEntries {
			return fmt.Errorf("archive: %w: %d entries", ErrTooMany, u.MaxEntries)
		}
		if err := u.entry(header); err != nil {
			return err
		}
	}
}

// ended checks that the stream has ended with what ends an archive, of which the
// last n bytes are: a program that died while it wrote one may have stopped
// between two entries.
func (u *untarrer) ended(n int64) error {
	const block = 512
	if n >= block {
		return nil
	}
	return u.damaged(io.ErrUnexpectedEOF)
}

// damaged describes an error of the stream.
func (u *untarrer) damaged(err error) error {
	switch {
	case u.ctx.Err() != nil:
		return u.ctx.Err()
	case u.in.n == 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return badArchive("archive: it is empty")
	case u.entries == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
		return badArchive("archive: it is no tar archive; one that is compressed must be unpacked first")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badArchive("archive: it is cut off")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return badArchive("archive: it is damaged: " + err.Error())
	}
	return fmt.Errorf("archive: %w", err)
}

// A badArchive says what is wrong with a stream or its entry. It is an
// fs.ErrInvalid.
type badArchive string

// Error implements error.
func (e badArchive) Error() string { return string(e) }

// Is reports that target is fs.ErrInvalid.
func (e badArchive) Is(target error) bool { return target == fs.ErrInvalid }

// A counter counts what was read.
type counter struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (u *untarrer) entry(header *tar.Header) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := entryName(header.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if header.Typeflag == tar.TypeDir {
			return nil
		}
		return refuse(header.Name, "only a folder can have this name")
	}
	header.Name = name
	if header.Typeflag == tar.TypeDir {
		return u.folder(header)
	}
	if err := u.dst.mkParent(name, u.Owner); err != nil {
		return inArchive(name, err)
	}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, '\x00':
		return u.file(header)
	case tar.TypeSymlink:
		return u.symlink(header)
	case tar.TypeLink:
		return u.hardLink(header)
	}
	return refuse(header.Name, "devices, FIFOs and other special files are not unpacked")
}

// entryName makes a name of a Root of an archive's.
func entryName(raw string) (string, error) {
	name := strings.TrimRight(raw, "/")
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	switch {
	case raw == "" || strings.HasPrefix(raw, "/"):
		return "", refuse(raw, "absolute or empty name")
	case len(raw) > maxName:
		return "", refuse(shorten(raw), "name too long")
	case name == "":
		return ".", nil
	}
	if err := check("untar", name); err != nil {
		return "", refuse(raw, "a name that is not clean")
	}
	return name, nil
}

func refuse(name, why string) error {
	return badArchive(fmt.Sprintf("archive: entry %q: %s", name, why))
}

// inArchive describes what went wrong with an entry. A link in its path was
// made by an entry before, or by the task.
func inArchive(name string, err error) error {
	if errors.Is(err, ErrLink) {
		return refuse(name, "a symbolic link stands in its path")
	}
	return fmt.Errorf("archive: entry %q: %w", shorten(name), err)
}

func (u *untarrer) folder(header *tar.Header) error {
	if info, err := u.dst.Stat(header.Name); err == nil && !isDir(info.Mode) {
		if err := u.dst.Remove(header.Name); err != nil {
			return inArchive(header.Name, err)
		}
	}
	if err := u.dst.MkdirAll(header.Name, 0o755, u.Owner); err != nil {
		return inArchive(header.Name, err)
	}
	u.folders = append(u.folders, tar.Header{Name: header.Name, Mode: header.Mode, ModTime: header.ModTime})
	return nil
}

func (u *untarrer) file(header *tar.Header) error {
	if u.MaxBytes > 0 && header.Size > u.MaxBytes-u.bytes {
		return fmt.Errorf("archive: entry %q: %w: %d bytes", header.Name, ErrTooMany, u.MaxBytes)
	}
	u.bytes += header.Size
	if err := u.clear(header.Name); err != nil {
		return err
	}
	f, err := u.dst.Create(header.Name, fs.FileMode(header.Mode)&0o777, u.Owner)
	if err != nil {
		return inArchive(header.Name, err)
	}
	defer f.Close()
	if _, err := copySparse(f, u.tr); errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(shorten(header.Name), "the archive is cut off in it")
	} else if err != nil {
		return inArchive(header.Name, err)
	}
	if err := errors.Join(f.Close(), u.dst.Chtimes(header.Name, header.ModTime)); err != nil {
		return inArchive(header.Name, err)
	}
	return nil
}

// clear removes the file or link that has the name of a new entry.
func (u *untarrer) clear(name string) error {
	info, err := u.dst.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && isDir(info.Mode) {
		return refuse(name, "a folder has its name")
	}
	if err == nil {
		err = u.dst.Remove(name)
	}
	if err != nil {
		return inArchive(name, err)
	}
	return nil
}

func (u *untarrer) symlink(header *tar.Header) error {
	if !u.AnyLink && !LinkInside(header.Name, header.Linkname) {
		return refuse(header.Name, fmt.Sprintf("its link to %q leads out of the folder", shorten(header.Linkname)))
	}
	if err := u.clear(header.Name); err != nil {
		return err
	}
	err := u.dst.Symlink(header.Linkname, header.Name, u.Owner)
	if err == nil {
		err = u.dst.Chtimes(header.Name, header.ModTime)
	}
	if err != nil {
		return inArchive(header.Name, err)
	}
	return nil
}

// hardLink links to a regular file that is in the folder already.
func (u *untarrer) hardLink(header *tar.Header) error {
	target, err := entryName(header.Linkname)
	if err != nil {
		return refuse(header.Name, fmt.Sprintf("its link to %q leads out of the folder", shorten(header.Linkname)))
	}
	if target == header.Name {
		return nil
	}
	if err := u.clear(header.Name); err != nil {
		return err
	}
	if err := u.dst.Link(target, header.Name); err != nil {
		return inArchive(header.Name, err)
	}
	return nil
}

// finish gives folders their modes and times, which the files in them would
// have changed or been hindered by; the deepest come first.
func (u *untarrer) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		header := &u.folders[i]
		if err := u.finishFolder(header); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return inArchive(header.Name, err)
		}
	}
	return nil
}

func (u *untarrer) finishFolder(header *tar.Header) error {
	info, err := u.dst.Stat(header.Name)
	if err != nil || !isDir(info.Mode) {
		return err // a later entry has replaced it
	}
	if err := u.dst.Chmod(header.Name, fs.FileMode(header.Mode)&0o777); err != nil {
		return err
	}
	return u.dst.Chtimes(header.Name, header.ModTime)
}
