//go:build unix

package safefs

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
)

// Tar writes name, and everything below it, as a tar stream; names in it start
// with the last element of name, and with nothing for ".". Regular files,
// folders and links are in it, links as they are; what is mounted below,
// devices, sockets and FIFOs are not. Owners are 0 and set-id bits are left
// out. Memory is constant. After an error the stream is cut off.
func (r *Root) Tar(ctx context.Context, name string, w io.Writer) error {
	t := tarrer{ctx: ctx, tw: tar.NewWriter(w), skip: len(name) - len(path.Base(name))}
	if err := r.Walk(ctx, name, &WalkOptions{MaxEntries: 1 << 31, SkipMounts: true}, t.entry); err != nil {
		return err
	}
	return t.tw.Close()
}

type tarrer struct {
	ctx  context.Context
	tw   *tar.Writer
	skip int // bytes of a path that are not in the stream
}

func (t *tarrer) entry(e *Entry) error {
	header := &tar.Header{
		Name: e.Path[min(t.skip, len(e.Path)):], Mode: int64(e.Mode.Perm()), ModTime: e.ModTime, Format: tar.FormatPAX,
	}
	switch {
	case e.Path == ".":
		return nil
	case e.Mode.IsRegular():
		return t.file(e, header)
	case isDir(e.Mode):
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		return t.tw.WriteHeader(header)
	case e.Mode&fs.ModeSymlink != 0:
		target, err := e.ReadLink()
		if err != nil {
			return gone(err)
		}
		header.Typeflag, header.Linkname = tar.TypeSymlink, target
		return t.tw.WriteHeader(header)
	}
	return nil
}

func (t *tarrer) file(e *Entry, header *tar.Header) error {
	f, err := e.Open()
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := t.tw.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.Copy(t.tw, io.LimitReader(&contextReader{t.ctx, f}, header.Size))
	if err == nil && n != header.Size {
		err = pathErr("tar", e.Path, ErrChanged)
	}
	return err
}

// gone forgives that a file has vanished since it was listed.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// A contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
