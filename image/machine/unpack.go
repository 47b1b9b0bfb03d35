//go:build unix

package machine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/qcow2"
	"github.com/caissonrun/caisson/internal/safefs"
)

// The files of an image in its folder. Archives have the first three and
// nothing else.
const (
	DiskName        = "disk.img"    // a raw disk
	LayerName       = "layer.qcow2" // what was changed of it
	descriptionName = "machine.json"
	ImageName       = "disk.qcow2" // a disk that is one qcow2 file
)

// Formats of disks, as QEMU has to be told: it must never find out by itself,
// because a guest can write anything to a raw disk.
const (
	FormatRaw   = "raw"
	FormatQcow2 = "qcow2"
)

const (
	zstdMagic = "\x28\xb5\x2f\xfd"
	// maxWindow is the most memory that a zstd stream may ask for.
	maxWindow = 128 << 20
	// maxBehind is what may follow the end of an archive: padding.
	maxBehind = 1 << 20
	// maxHeaders is what an archive may be beside its disk and its layer.
	maxHeaders = 8 << 20
	chunkSize  = 512 << 10
	sector     = 512
)

// Limits bounds what an image may be. Zero values are the defaults.
type Limits struct {
	Sent    caisson.Bytes // of what is read, compressed as it is; default 32g
	Disk    caisson.Bytes // of the disk that a guest sees, and of each file; default 50g
	Written caisson.Bytes // of all that is written to this host's disk, holes left out; default 50g
}

func (l *Limits) withDefaults() Limits {
	all := Limits{Sent: 32 * caisson.GiB, Disk: 50 * caisson.GiB, Written: 50 * caisson.GiB}
	if l == nil {
		return all
	}
	for _, pair := range [][2]*caisson.Bytes{{&all.Sent, &l.Sent}, {&all.Disk, &l.Disk}, {&all.Written, &l.Written}} {
		if *pair[1] != 0 {
			*pair[0] = *pair[1]
		}
	}
	return all
}

// An Image is what lies in a folder after Unpack. Its disk is the last of Files;
// one that has several is a chain, each a layer over the one before.
type Image struct {
	// Files are the names in the folder that make up the disk, the lowest first.
	Files []string `json:"files"`
	// Format is that of the last file.
	Format string `json:"format"`
	// Size is that of the disk that a guest sees.
	Size caisson.Bytes `json:"size"`
	// Machine is what the image says of its machine. Nil: nothing.
	Machine *Machine `json:"machine,omitempty"`
	// Written is what was written to this host's disk, holes left out.
	Written caisson.Bytes `json:"written"`
	// SHA256 is the digest of what was read, in hex.
	SHA256 string `json:"sha256"`
}

// Unpack reads an image of any kind and writes its files to the empty folder
// dir, read-only: an archive, a qcow2 image that stands alone, or anything else as a raw
// disk. Wanted is the digest that all of what is read must have, in hex; empty:
// any. Holes stay holes. On error no file is left; that the files are durable
// is the caller's to see to.
//
// Errors: what rd says; ErrInvalid for an image that is damaged, not complete, or not what
// wanted says, that has anything else in it, or is larger than the limits
// permit; ErrUnsupported for one that is encrypted, newer, or of another
// program; ErrExhausted for a full disk.
func Unpack(ctx context.Context, rd io.Reader, dir *safefs.Root, wanted string, limits *Limits) (*Image, error) {
	all := limits.withDefaults()
	u := &unpacker{ctx: ctx, dir: dir, limits: all, img: new(Image), sent: &sentReader{ctx: ctx, rd: rd, left: int64(all.Sent), limit: all.Sent}}
	u.sent.sum = sha256.New()
	err := u.run()
	if err == nil {
		err = u.checkSum(wanted)
	}
	if u.sent.err != nil {
		err = u.sent.err
	}
	if err != nil {
		for _, name := range u.made {
			err = errors.Join(err, dir.Remove(name))
		}
		return nil, safefs.Sorted("", "machine image", err)
	}
	return u.img, nil
}

type unpacker struct {
	ctx    context.Context
	dir    *safefs.Root
	limits Limits
	sent   *sentReader
	img    *Image
	made   []string // files
}

func (u *unpacker) run() error {
	rd := bufio.NewReaderSize(u.sent, chunkSize)
	head, err := rd.Peek(longestMagic)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte(zstdMagic)):
		return u.archive(rd)
	case qcow2.Is(head):
		return u.alone(rd)
	}
	for _, other := range otherFormats() {
		if bytes.HasPrefix(head, []byte(other.magic)) {
			return &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf("it is %s: want qcow2, raw, or an archive of a machine", other.what)}
		}
	}
	return u.raw(rd)
}

// A format is told by how a file begins.
type format struct{ magic, what string }

const longestMagic = 24

// otherFormats are what a disk would never begin with.
func otherFormats() []format {
	return []format{
		{"\x1f\x8b", "compressed by gzip"},
		{"\xfd7zXZ\x00", "compressed by xz"},
		{"BZh", "compressed by bzip2"},
		{"PK\x03\x04", "a zip archive"},
		{"KDMV", "a disk of VMware"},
		{"# Disk DescriptorFile", "a disk of VMware"},
		{"vhdxfile", "a disk of Hyper-V"},
		{"conectix", "a disk of Virtual PC"},
		{"<<< ", "a disk of VirtualBox"},
		{"QED\x00", "a disk in QEMU's old format"},
		{"LUKS\xba\xbe", "encrypted"},
	}
}

// checkSum compares the digest of everything that was read.
func (u *unpacker) checkSum(wanted string) error {
	u.img.SHA256 = hex.EncodeToString(u.sent.sum.Sum(nil))
	if wanted != "" && !strings.EqualFold(wanted, u.img.SHA256) {
		return invalid("it is sha256:%s, and not sha256:%s", u.img.SHA256, shorten(wanted))
	}
	return nil
}

// archive unpacks taskcluster-worker's format.
func (u *unpacker) archive(rd io.Reader) error {
	zr, err := zstd.NewReader(rd, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return damaged(err)
	}
	defer zr.Close()
	plain := &plainReader{ctx: u.ctx, rd: zr, left: 2*min(int64(u.limits.Disk), 1<<60) + maxHeaders}
	seen := map[string]bool{}
	for tr := tar.NewReader(plain); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := u.member(header, tr, seen); err != nil {
			return fmt.Errorf("member %q: %w", shorten(header.Name), err)
		}
	}
	for _, name := range []string{DiskName, LayerName, descriptionName} {
		if !seen[name] {
			return invalid("it has no member %s", name)
		}
	}
	// What follows belongs to the digest, and tells whether the stream is whole.
	n, err := io.Copy(io.Discard, io.LimitReader(plain, maxBehind+1))
	if err != nil {
		return damaged(err)
	}
	if n > maxBehind {
		return invalid("more than %d bytes follow its end", maxBehind)
	}
	if _, err := io.Copy(io.Discard, rd); err != nil {
		return err
	}
	u.img.Files, u.img.Format = []string{DiskName, LayerName}, FormatQcow2
	return nil
}

// member unpacks a member of an archive, which must be one of three plain files.
func (u *unpacker) member(header *tar.Header, rd io.Reader, seen map[string]bool) error {
	name := header.Name
	switch {
	case name != DiskName && name != LayerName && name != descriptionName:
		return invalid("want only %s, %s and %s", DiskName, LayerName, descriptionName)
	case seen[name]:
		return invalid("it is there twice")
	case header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeGNUSparse:
		return invalid("it is not a plain file")
	case name == descriptionName && header.Size > maxDescription:
		return invalid("more than %d bytes", maxDescription)
	}
	seen[name] = true
	if err := u.file(name, header.Size, rd); err != nil {
		return err
	}
	switch name {
	case DiskName:
		return u.checkRaw(header.Size)
	case LayerName:
		return u.checkLayer()
	}
	data, err := u.dir.ReadFile(name, maxDescription)
	if err == nil {
		u.img.Machine, err = ParseMachine(data)
	}
	return err
}

// alone unpacks an image that is one qcow2 file.
func (u *unpacker) alone(rd io.Reader) error {
	if err := u.file(ImageName, -1, rd); err != nil {
		return err
	}
	info, err := u.inspect(ImageName)
	if err != nil {
		return err
	}
	if info.BackingFile != "" {
		return invalid("it is a layer over %q, and not a whole disk", shorten(info.BackingFile))
	}
	u.img.Files, u.img.Format, u.img.Size = []string{ImageName}, FormatQcow2, info.Size
	return nil
}

// raw unpacks a disk as it is.
func (u *unpacker) raw(rd io.Reader) error {
	if err := u.file(DiskName, -1, rd); err != nil {
		return err
	}
	info, err := u.dir.Stat(DiskName)
	if err != nil {
		return err
	}
	u.img.Files, u.img.Format, u.img.Size = []string{DiskName}, FormatRaw, caisson.Bytes(info.Size)
	return u.checkRaw(info.Size)
}

// file writes a file of size bytes, -1 if that is not known, with holes for
// blocks of zeros.
func (u *unpacker) file(name string, size int64, rd io.Reader) error {
	if size > int64(u.limits.Disk) {
		return u.tooLarge()
	}
	f, err := u.dir.Create(name, 0o444, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	u.made = append(u.made, name)
	at, buf := int64(0), make([]byte, chunkSize)
	for {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(rd, buf)
		if at+int64(n) > int64(u.limits.Disk) {
			return u.tooLarge()
		}
		written, writeErr := safefs.WriteSparse(f, buf[:n], at)
		if writeErr != nil {
			return writeErr
		}
		at += int64(n)
		if u.img.Written += caisson.Bytes(written); u.img.Written > u.limits.Written {
			return invalid("more than %s to be written, the limit", u.limits.Written)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && (size < 0 || at == size):
			return errors.Join(f.Truncate(at), f.Close())
		case err != nil:
			return damaged(err)
		}
	}
}

func (u *unpacker) tooLarge() error {
	return invalid("more than %s, the limit of a machine's disk", u.limits.Disk)
}

// checkRaw looks at a raw disk. One that begins as a qcow2 image does was meant
// to be taken for one.
func (u *unpacker) checkRaw(size int64) error {
	if size == 0 || size%sector != 0 {
		return invalid("a disk of %d bytes: want a multiple of %d", size, sector)
	}
	f, err := u.dir.Open(DiskName)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(zstdMagic))
	if _, err := io.ReadFull(f, head); err != nil {
		return err
	}
	if qcow2.Is(head) {
		return invalid("it is a qcow2 image, and not a raw disk")
	}
	return nil
}

// checkLayer looks at the layer over the raw disk.
func (u *unpacker) checkLayer() error {
	info, err := u.inspect(LayerName)
	if err != nil {
		return err
	}
	if info.BackingFile != DiskName || info.BackingFormat != FormatRaw {
		return invalid("it is a layer over %q of format %q, want %s and %s", shorten(info.BackingFile), shorten(info.BackingFormat), DiskName, FormatRaw)
	}
	u.img.Size = info.Size
	return nil
}

// inspect reads what a qcow2 file says about itself.
func (u *unpacker) inspect(name string) (*qcow2.Info, error) {
	f, err := u.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	info, err := qcow2.Read(f, stat.Size())
	switch {
	case err != nil:
		return nil, err
	case info.Dirty:
		return nil, invalid("it was not closed by who wrote to it last: repair it with qemu-img check -r all")
	case info.Snapshots > 0:
		return nil, invalid("it has %d snapshots in it: remove them with qemu-img snapshot -d", info.Snapshots)
	case info.Size == 0 || info.Size%sector != 0:
		return nil, invalid("a disk of %d bytes: want a multiple of %d", info.Size, sector)
	case info.Size > u.limits.Disk:
		return nil, u.tooLarge()
	}
	return info, nil
}

// damaged sorts an error of a stream.
func damaged(err error) error {
	if caisson.KindOf(err) != caisson.ErrUnknown || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isPath(err) {
		return err
	}
	return invalid("damaged: %w", err)
}

// isPath reports whether an error is of a file of this host.
func isPath(err error) bool {
	var path *os.PathError
	return errors.As(err, &path)
}
