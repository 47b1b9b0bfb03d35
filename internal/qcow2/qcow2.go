// Package qcow2 reads what a disk image of QEMU says about itself, and makes
// empty ones. A hostile image is never given to a program to look at: what its
// header names could be any file of this host.
//
// It is written from the format's specification, versions 2 and 3. Only the
// header, what extends it, and the first level of tables are looked at;
// the rest can do no more than give wrong data to the guest that reads it.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
)

const (
	magic = "QFI\xfb"

	headerV2  = 72
	headerV3  = 104
	maxHeader = 4096 // far more than any feature so far needs

	minClusterBits = 9
	maxClusterBits = 21
	maxBacking     = 1023     // bytes of a backing file's name
	maxL1          = 32 << 20 // bytes of the first table; QEMU permits no more
	maxRefcounts   = 8 << 20  // bytes of the table of reference counts, likewise
	maxExtensions  = 64

	// MaxSize is the largest disk that is read or made: 64 TiB.
	MaxSize = 64 * 1024 * caisson.GiB
)

// Incompatible features. A program that does not know one must not read the
// image.
const (
	featureDirty       = 1 << 0
	featureCorrupt     = 1 << 1
	featureDataFile    = 1 << 2
	featureCompression = 1 << 3
	featureExtendedL2  = 1 << 4
)

// Header extensions.
const (
	extEnd     = 0
	extBacking = 0xe2792aca // the backing file's format
	extCrypt   = 0x0537be77
	extData    = 0x44415441 // an external data file's name
)

// Info is what an image says about itself.
type Info struct {
	Version int
	Size    caisson.Bytes // of the disk that a guest sees
	Cluster caisson.Bytes
	// BackingFile is the name of the image below this one, empty if there is none.
	// It is whatever the maker of the image wrote: nothing may open it.
	BackingFile   string
	BackingFormat string // as the image says it, such as raw; may be empty
	// Dirty says that whoever wrote to the image last has not closed it.
	Dirty         bool
	LazyRefcounts bool
	Zstd          bool // compressed clusters are zstd's, not deflate's
	ExtendedL2    bool
	Snapshots     int // in the image itself
}

// Is reports whether a file that begins so is a qcow2 image.
func Is(head []byte) bool { return len(head) >= len(magic) && string(head[:len(magic)]) == magic }

// Read reads the description of an image in a file of size bytes.
//
// Errors: ErrInvalid for what is no image of this kind, or one that
// contradicts itself, or is marked as corrupt; ErrUnsupported for another
// version, an encrypted image, one whose data is in another file, and features
// that nobody knows here.
func Read(f io.ReaderAt, size int64) (*Info, error) {
	h, err := readHeader(f, size)
	if err != nil {
		return nil, err
	}
	info := &Info{
		Version: int(h.version), Size: caisson.Bytes(h.size), Cluster: caisson.Bytes(h.cluster()), Snapshots: int(h.snapshots),
		Dirty: h.incompatible&featureDirty != 0, LazyRefcounts: h.compatible&1 != 0,
		Zstd: h.compression == 1, ExtendedL2: h.incompatible&featureExtendedL2 != 0,
	}
	if err := h.check(size); err != nil {
		return nil, err
	}
	if err := h.checkL1(f, size); err != nil {
		return nil, err
	}
	if info.BackingFormat, err = h.extensions(f); err != nil {
		return nil, err
	}
	if info.BackingFile, err = h.backing(f); err != nil {
		return nil, err
	}
	if info.BackingFile == "" && info.BackingFormat != "" {
		return nil, invalid("it names the format of a backing file and no file")
	}
	return info, nil
}

func invalid(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("qcow2: "+format, args...)}
}

func unsupported(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf("qcow2: "+format, args...)}
}

// header is the fixed part of an image's beginning, fields in their order.
type header struct {
	version       uint32
	backingAt     uint64
	backingSize   uint32
	clusterBits   uint32
	size          uint64
	crypt         uint32
	l1Size        uint32
	l1At          uint64
	refcountsAt   uint64
	refcounts     uint32 // clusters
	snapshots     uint32
	snapshotsAt   uint64
	incompatible  uint64
	compatible    uint64
	refcountOrder uint32
	length        uint32
	compression   byte
}

func (h *header) cluster() uint64 { return 1 << h.clusterBits }

// perL2 is how many bytes of the disk an entry of the first table stands for.
func (h *header) perL2() uint64 {
	entry := uint64(8)
	if h.incompatible&featureExtendedL2 != 0 {
		entry = 16
	}
	return h.cluster() / entry * h.cluster()
}

func readHeader(f io.ReaderAt, size int64) (*header, error) {
	b := make([]byte, headerV3+8)
	n, err := f.ReadAt(b[:min(int64(len(b)), max(size, 0))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n < headerV2 || !Is(b) {
		return nil, invalid("not such an image")
	}
	be := binary.BigEndian
	h := &header{
		version: be.Uint32(b[4:]), backingAt: be.Uint64(b[8:]), backingSize: be.Uint32(b[16:]), clusterBits: be.Uint32(b[20:]),
		size: be.Uint64(b[24:]), crypt: be.Uint32(b[32:]), l1Size: be.Uint32(b[36:]), l1At: be.Uint64(b[40:]),
		refcountsAt: be.Uint64(b[48:]), refcounts: be.Uint32(b[56:]), snapshots: be.Uint32(b[60:]), snapshotsAt: be.Uint64(b[64:]),
		refcountOrder: 4, length: headerV2,
	}
	switch h.version {
	case 2:
		return h, nil
	case 3:
	default:
		return nil, unsupported("version %d, want 2 or 3", h.version)
	}
	if n < headerV3 {
		return nil, invalid("it ends in its header")
	}
	h.incompatible, h.compatible = be.Uint64(b[72:]), be.Uint64(b[80:])
	h.refcountOrder, h.length = be.Uint32(b[96:]), be.Uint32(b[100:])
	if h.length > headerV3 && n > headerV3 {
		h.compression = b[headerV3]
	}
	return h, nil
}

// check looks at every field on its own, and at where things are.
func (h *header) check(size int64) error {
	const known = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
	compressed := h.incompatible&featureCompression != 0
	switch {
	case h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits:
		return invalid("clusters of 2^%d bytes", h.clusterBits)
	case h.crypt != 0:
		return unsupported("it is encrypted")
	case h.incompatible&featureDataFile != 0:
		return unsupported("its data is in another file")
	case h.incompatible&featureCorrupt != 0:
		return invalid("it is marked as corrupt")
	case h.incompatible&^known != 0:
		return unsupported("features %#x, which are not known here", h.incompatible&^known)
	case h.version == 3 && (h.length < headerV3 || h.length > maxHeader || h.length%8 != 0 || uint64(h.length) > h.cluster()):
		return invalid("a header of %d bytes", h.length)
	case h.refcountOrder > 6:
		return invalid("reference counts of 2^%d bits", h.refcountOrder)
	case compressed && h.compression > 1:
		return unsupported("compression %d is not known here", h.compression)
	case compressed != (h.compression != 0):
		return invalid("it says two things of how it is compressed")
	case h.incompatible&featureExtendedL2 != 0 && h.clusterBits < 14:
		return invalid("clusters of 2^%d bytes are too small to be divided", h.clusterBits)
	case h.size > uint64(MaxSize):
		return invalid("a disk of %d bytes, more than %s", h.size, MaxSize)
	}
	return h.checkTables(size)
}

// checkTables looks at where the tables are, and how large.
func (h *header) checkTables(size int64) error {
	l1 := uint64(h.l1Size) * 8
	if need := (h.size + h.perL2() - 1) / h.perL2(); uint64(h.l1Size) < need {
		return invalid("its first table has %d entries, and a disk of %d bytes needs %d", h.l1Size, h.size, need)
	}
	if l1 > maxL1 {
		return invalid("its first table has %d entries", h.l1Size)
	}
	if l1 > 0 && !h.inFile(h.l1At, l1, size) {
		return invalid("its first table is not in the file")
	}
	counts := uint64(h.refcounts) << h.clusterBits
	if h.refcounts == 0 || counts > maxRefcounts {
		return invalid("its table of reference counts has %d clusters", h.refcounts)
	}
	if !h.inFile(h.refcountsAt, counts, size) {
		return invalid("its table of reference counts is not in the file")
	}
	if h.snapshots > 0 && !h.inFile(h.snapshotsAt, 40, size) {
		return invalid("its snapshots are not in the file")
	}
	return nil
}

// inFile reports whether a table stands behind the header, at the beginning of
// a cluster, and ends in the file.
func (h *header) inFile(at, length uint64, size int64) bool {
	end := at + length
	return at >= h.cluster() && at%h.cluster() == 0 && end > at && end <= uint64(size)
}

// checkL1 looks at every entry of the first table.
func (h *header) checkL1(f io.ReaderAt, size int64) error {
	const where, flag = 0x00fffffffffffe00, 1 << 63
	b := make([]byte, 64<<10)
	for left, at := int64(h.l1Size)*8, int64(h.l1At); left > 0; {
		chunk := b[:min(left, int64(len(b)))]
		if n, err := f.ReadAt(chunk, at); n < len(chunk) {
			return short(err)
		}
		for i := 0; i < len(chunk); i += 8 {
			entry := binary.BigEndian.Uint64(chunk[i:])
			to := entry & where
			if entry&^uint64(where|flag) != 0 || to != 0 && !h.inFile(to, h.cluster(), size) {
				return invalid("an entry of its first table leads out of the file")
			}
		}
		left, at = left-int64(len(chunk)), at+int64(len(chunk))
	}
	return nil
}

// extensions reads what follows the fixed header, and returns the backing
// file's format.
func (h *header) extensions(f io.ReaderAt) (format string, err error) {
	end := h.cluster()
	if h.backingAt != 0 {
		end = min(end, h.backingAt)
	}
	seen := false
	for at, count := uint64(h.length), 0; at < end; count++ {
		b := make([]byte, 8)
		if n, err := f.ReadAt(b, int64(at)); n < len(b) {
			return "", short(err)
		}
		kind, length := binary.BigEndian.Uint32(b), uint64(binary.BigEndian.Uint32(b[4:]))
		at += 8
		if kind == extEnd {
			break
		}
		if at > end || length > end-at || count >= maxExtensions {
			return "", invalid("what extends its header leads out of it")
		}
		switch kind {
		case extCrypt:
			return "", unsupported("it is encrypted")
		case extData:
			return "", unsupported("its data is in another file")
		case extBacking:
			if seen {
				return "", invalid("it names the backing file's format twice")
			}
			seen = true
			if format, err = readName(f, at, length, "format"); err != nil {
				return "", err
			}
		}
		at += (length + 7) &^ 7
	}
	return format, nil
}

// short is the error of an image that ends too early.
func short(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return invalid("it ends too early")
	}
	return err
}

// backing returns the name of the backing file.
func (h *header) backing(f io.ReaderAt) (string, error) {
	if h.backingAt == 0 {
		if h.backingSize != 0 {
			return "", invalid("a backing file's name that is nowhere")
		}
		return "", nil
	}
	size := uint64(h.backingSize)
	if h.backingAt < uint64(h.length) || size == 0 || size > maxBacking || h.backingAt > h.cluster() || size > h.cluster()-h.backingAt {
		return "", invalid("the backing file's name leads out of its header")
	}
	return readName(f, h.backingAt, size, "backing file")
}

// readName reads a text that somebody may be shown.
func readName(f io.ReaderAt, at, size uint64, what string) (string, error) {
	if size == 0 || size > maxBacking {
		return "", invalid("a %s of %d bytes", what, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, int64(at)); n < len(b) {
		return "", short(err)
	}
	name := string(b)
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", invalid("a %s with bytes that no name has", what)
	}
	return name, nil
}
