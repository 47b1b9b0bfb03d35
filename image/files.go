//go:build unix

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// files is a folder, or a tar file that is read as if it were one. Nothing is
// ever unpacked from it by its name.
type files interface {
	// open opens a regular file. Errors: ErrNotFound.
	open(name string) (*part, error)
	close()
}

// A part is one file of a folder or archive.
type part struct {
	io.ReadSeeker
	io.Closer
	size int64
	info fs.FileInfo // of a file of its own
}

// readPart returns a file of at most limit bytes.
func readPart(f files, name string, limit int64) ([]byte, error) {
	p, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.all(name, limit)
}

// all reads a part of at most limit bytes.
func (p *part) all(name string, limit int64) ([]byte, error) {
	if p.size > limit {
		return nil, invalid("%s has %d bytes, and may have %d", shorten(name), p.size, limit)
	}
	return io.ReadAll(io.LimitReader(p, limit))
}

// named returns the real path of what a reference names, relative to the host's
// root, and that root.
func (r *remote) named(p *pulling) (*safefs.Root, string, error) {
	real, err := r.allowed.Existing(p.ref.Path, p.req.Trusted)
	var e *caisson.Error
	if errors.As(err, &e) && e.Err != nil {
		err = &caisson.Error{Kind: e.Kind, Err: e.Err} // the reference says the path
	}
	if err != nil {
		return nil, "", err
	}
	host, err := safefs.Open("/", &safefs.Options{CrossMounts: true})
	if err != nil {
		return nil, "", err
	}
	name := strings.TrimPrefix(real, "/")
	if name == "" {
		name = "."
	}
	return host, name, nil
}

// A hostFolder is files of a folder of this host.
type hostFolder struct{ root *safefs.Root }

func (r *remote) openFolder(p *pulling) (*hostFolder, error) {
	host, name, err := r.named(p)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	root, err := host.Sub(name)
	if err != nil {
		return nil, sorted(p.ref.Path, err)
	}
	return &hostFolder{root: root}, nil
}

func (f *hostFolder) close() { f.root.Close() }

func (f *hostFolder) open(name string) (*part, error) {
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("there is no %s", shorten(name))
	}
	if err != nil {
		return nil, sorted(shorten(name), err)
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, invalid("%s is not a regular file", shorten(name))
	}
	return &part{ReadSeeker: file, Closer: file, size: info.Size(), info: info}, nil
}

const (
	// maxMembers is how many members an archive may have.
	maxMembers = 20_000
	// maxMemberName is the longest name that is remembered, in bytes.
	maxMemberName = 1024
	// maxMemberLinks is how many links may lead to each other.
	maxMemberLinks = 8
)

// An archive is files of a tar file, found by where they lie in it.
type archive struct {
	file    *os.File
	size    int64
	members map[string]member
}

// A member is a regular file in an archive, or a link to one.
type member struct {
	offset, size int64
	link         string
}

// openTar makes files of a tar file, which may be compressed. It owns the file
// from then on, also if it fails.
func (r *remote) openTar(ctx context.Context, file *os.File) (*archive, error) {
	plain, err := r.decompress(ctx, file)
	if err != nil {
		file.Close()
		return nil, err
	}
	a := &archive{file: plain, members: make(map[string]member)}
	if err := a.index(ctx); err != nil {
		plain.Close()
		return nil, err
	}
	return a, nil
}

func (a *archive) close() { a.file.Close() }

// index learns where the members lie. Of several with the same name the last
// one counts, as if the archive had been unpacked.
func (a *archive) index(ctx context.Context) error {
	info, err := a.file.Stat()
	if err != nil {
		return err
	}
	a.size = info.Size()
	rd := tar.NewReader(a.file)
	for n := 0; ; n++ {
		header, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("the archive can't be read: %w", err)
		}
		if n >= maxMembers {
			return invalid("the archive has more than %d members", maxMembers)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.member(header); err != nil {
			return err
		}
	}
}

// member remembers one. What is neither a file nor a link is not needed.
func (a *archive) member(header *tar.Header) error {
	name := path.Clean("/" + header.Name)[1:]
	if len(name) > maxMemberName {
		return nil
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return nil
		}
	}
	switch header.Typeflag {
	case tar.TypeReg:
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if header.Size < 0 || header.Size > a.size-offset {
			return invalid("the archive is cut off in %s", shorten(name))
		}
		a.members[name] = member{offset: offset, size: header.Size}
	case tar.TypeSymlink:
		a.members[name] = member{link: path.Clean("/" + path.Join(path.Dir(name), header.Linkname))[1:]}
	case tar.TypeLink:
		a.members[name] = member{link: path.Clean("/" + header.Linkname)[1:]}
	default:
		delete(a.members, name)
	}
	return nil
}

func (a *archive) open(name string) (*part, error) {
	at := path.Clean("/" + name)[1:]
	for range maxMemberLinks {
		m, ok := a.members[at]
		if !ok {
			return nil, notFound("there is no %s in the archive", shorten(name))
		}
		if m.link == "" {
			return &part{ReadSeeker: io.NewSectionReader(a.file, m.offset, m.size), Closer: io.NopCloser(nil), size: m.size}, nil
		}
		at = m.link
	}
	return nil, invalid("%s in the archive is a link that leads nowhere", shorten(name))
}

// Beginnings of compressed files.
var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzipMagic = []byte("BZh")
)

// decompress returns the file itself if it is not compressed, else a nameless
// one with what is in it; the first is closed then.
func (r *remote) decompress(ctx context.Context, file *os.File) (*os.File, error) {
	var magic [6]byte
	n, err := file.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var rd io.Reader
	switch start := magic[:n]; {
	case bytes.HasPrefix(start, gzipMagic):
		rd, err = gzip.NewReader(file)
	case bytes.HasPrefix(start, zstdMagic):
		var decoder *zstd.Decoder
		if decoder, err = zstd.NewReader(file, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			defer decoder.Close()
			rd = decoder
		}
	case bytes.HasPrefix(start, xzMagic), bytes.HasPrefix(start, bzipMagic):
		return nil, unsupported("the archive is compressed by xz or bzip2: use gzip, zstd or none")
	default:
		return file, nil
	}
	if err != nil {
		return nil, invalid("the archive can't be read: %w", err)
	}
	// Where a kill just here leaves it, it is collected with cut downloads.
	dir := filepath.Join(r.dir, partialDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	plain, err := os.CreateTemp(dir, "archive-")
	if err != nil {
		return nil, err
	}
	// Whatever happens from here on, nothing of it stays.
	err = os.Remove(plain.Name())
	if err == nil {
		err = r.inflate(ctx, plain, rd)
	}
	if err != nil {
		plain.Close()
		return nil, err
	}
	file.Close()
	return plain, nil
}

// inflate copies as much as an image may have.
func (r *remote) inflate(ctx context.Context, plain *os.File, rd io.Reader) error {
	most := int64(r.limits.Bytes)
	buf := make([]byte, 256<<10)
	for done := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := rd.Read(buf)
		if done += int64(n); most > 0 && done > most {
			return invalid("the archive has more than %d bytes, the limit of an image", most)
		}
		if _, err := plain.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			_, err = plain.Seek(0, io.SeekStart)
			return err
		}
		if err != nil {
			return invalid("the archive can't be read: %w", err)
		}
	}
}

// openFile opens an archive that a reference names.
func (r *remote) openFile(p *pulling) (*os.File, error) {
	host, name, err := r.named(p)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	file, err := host.Open(name)
	if err != nil {
		return nil, sorted(p.ref.Path, err)
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, invalid("%s is not a regular file", p.ref.Path)
	}
	p.access = p.fileAccess(info)
	return file, nil
}

// openArchive returns the source of an archive that a reference names.
func (r *remote) openArchive(ctx context.Context, p *pulling) (source, error) {
	file, err := r.openFile(p)
	if err != nil {
		return nil, err
	}
	a, err := r.openTar(ctx, file)
	if err != nil {
		return nil, err
	}
	if p.ref.Scheme == SchemeDockerArchive {
		return p.saved(a), nil
	}
	return p.layout(a)
}

// layout returns the source of a layout. It owns the files from then on, also
// if it fails.
func (p *pulling) layout(f files) (source, error) {
	l := &layout{files: f, ref: p.ref}
	if err := l.read(p); err != nil {
		f.close()
		return nil, err
	}
	return l, nil
}

// openLayout returns the source of a folder that a reference names.
func (r *remote) openLayout(p *pulling) (source, error) {
	f, err := r.openFolder(p)
	if err != nil {
		return nil, err
	}
	return p.layout(f)
}

// seek begins to read a part at offset.
func (p *part) seek(offset, size int64) (io.ReadCloser, int64, error) {
	if p.size != size {
		p.Close()
		return nil, 0, invalid("wrong size: there are %d bytes, expected %d", p.size, size)
	}
	if _, err := p.Seek(offset, io.SeekStart); err != nil {
		p.Close()
		return nil, 0, fmt.Errorf("byte %d: %w", offset, err)
	}
	return p, offset, nil
}
