package qcow2

import (
	"encoding/binary"
	"os"
	"strings"

	"github.com/caissonrun/caisson"
)

// Options says what an empty image is.
type Options struct {
	Size caisson.Bytes // of the disk that a guest sees; at least 512
	// BackingFile is what is read where nothing was written yet: a path, relative
	// ones to the image's folder. Empty: zeros are.
	BackingFile string
	// BackingFormat is raw or qcow2, and must be said: who leaves it to QEMU
	// lets a guest write a header into a raw disk.
	BackingFormat string
	// LazyRefcounts writes less, and has an image checked that was not closed.
	LazyRefcounts bool
}

// What images that are made here are like.
const (
	newBits    = 16
	newCluster = 1 << newBits
	newPerL2   = newCluster / 8 * newCluster
	l1Cluster  = 3 // behind the header, the table of reference counts, and one block of them
)

// Create makes an empty image in the new and empty file f. It has a few
// hundred kilobytes, most of them a hole.
//
// Errors: ErrInvalid for options that make no image.
func Create(f *os.File, opts *Options) error {
	if err := opts.check(); err != nil {
		return err
	}
	entries := (int64(opts.Size) + newPerL2 - 1) / newPerL2
	clusters := l1Cluster + (entries*8+newCluster-1)/newCluster
	// MaxSize needs 16 clusters for its first table, far from more than one block
	// of reference counts.
	counts := make([]byte, 2*clusters)
	for i := range clusters {
		binary.BigEndian.PutUint16(counts[2*i:], 1)
	}
	table := binary.BigEndian.AppendUint64(nil, 2*newCluster)
	if err := f.Truncate(clusters * newCluster); err != nil {
		return err
	}
	if _, err := f.WriteAt(table, newCluster); err != nil {
		return err
	}
	if _, err := f.WriteAt(counts, 2*newCluster); err != nil {
		return err
	}
	_, err := f.WriteAt(opts.header(uint32(entries)), 0)
	return err
}

func (o *Options) check() error {
	first, _, _ := strings.Cut(o.BackingFile, "/")
	switch {
	case o.Size < 512 || o.Size%512 != 0 || o.Size > MaxSize:
		return invalid("a disk of %d bytes: it must be a multiple of 512, and at most %s", int64(o.Size), MaxSize)
	case len(o.BackingFile) > maxBacking:
		return invalid("the backing file's name has more than %d bytes", maxBacking)
	case strings.Contains(first, ":"):
		return invalid("QEMU would take the backing file %q for an address: name it by an absolute path", o.BackingFile)
	case strings.ContainsFunc(o.BackingFile, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return invalid("the backing file %q has bytes that no name has", o.BackingFile)
	case o.BackingFile == "" && o.BackingFormat != "":
		return invalid("a backing file's format without a file")
	case o.BackingFile != "" && o.BackingFormat != "raw" && o.BackingFormat != "qcow2":
		return invalid("a backing file's format %q, want raw or qcow2", o.BackingFormat)
	}
	return nil
}

// header returns the beginning of the image.
func (o *Options) header(entries uint32) []byte {
	be := binary.BigEndian
	b := make([]byte, headerV3+8)
	copy(b, magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], newBits)
	be.PutUint64(b[24:], uint64(o.Size))
	be.PutUint32(b[36:], entries)
	be.PutUint64(b[40:], l1Cluster*newCluster)
	be.PutUint64(b[48:], newCluster)
	be.PutUint32(b[56:], 1)
	if o.LazyRefcounts {
		be.PutUint64(b[80:], 1)
	}
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], uint32(len(b)))
	if o.BackingFile == "" {
		return append(b, make([]byte, 8)...)
	}
	b = be.AppendUint32(b, extBacking)
	b = be.AppendUint32(b, uint32(len(o.BackingFormat)))
	b = append(b, o.BackingFormat...)
	b = append(b, make([]byte, (8-len(o.BackingFormat)%8)%8+8)...) // and the end of what extends it
	be.PutUint64(b[8:], uint64(len(b)))
	be.PutUint32(b[16:], uint32(len(o.BackingFile)))
	return append(b, o.BackingFile...)
}
