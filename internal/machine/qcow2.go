package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/caissonrun/caisson"
)

// The parts of qcow2, version 3, that are used here. All numbers are big-endian.
const (
	qcowMagic   = "QFI\xfb"
	clusterBits = 16
	cluster     = 1 << clusterBits
	// An entry of the first table covers a cluster full of entries of the second.
	perL1 = int64(cluster/8) * cluster
	// maxLayer keeps the first table within what one refcount block counts.
	maxLayer = caisson.Bytes(64 << 40)
)

// qcowHeader is how a file begins.
type qcowHeader struct {
	Magic            [4]byte
	Version          uint32
	BackingOffset    uint64
	BackingSize      uint32
	ClusterBits      uint32
	Size             uint64
	Crypt            uint32
	L1Size           uint32
	L1Offset         uint64
	RefcountOffset   uint64
	RefcountClusters uint32
	Snapshots        uint32
	SnapshotsOffset  uint64
	// Of version 3.
	Incompatible uint64
	Compatible   uint64
	Autoclear    uint64
	RefcountBits uint32 // as a power of two
	Length       uint32
}

// Features that a reader must know, and must refuse otherwise.
const (
	qcowDirty    = 1 << 0
	qcowCorrupt  = 1 << 1
	qcowData     = 1 << 2 // the data is in another file, which this one names
	qcowCompress = 1 << 3
	qcowL2       = 1 << 4
)

// WriteLayer writes an empty qcow2 image of that size to an empty file: the
// writable layer of a machine's disk, with a few hundred kilobytes at most. It
// names nothing that lies below it: Disk.Base does.
func WriteLayer(w io.WriterAt, size caisson.Bytes) error {
	if size <= 0 || size > maxLayer || size%512 != 0 {
		return &caisson.Error{Op: caisson.OpCreate, Item: "layer", Kind: caisson.ErrInvalid, Err: fmt.Errorf("%d bytes are no size of a disk", size)}
	}
	l1 := (int64(size) + perL1 - 1) / perL1
	tables := (l1*8 + cluster - 1) / cluster
	// The header, the table of refcount blocks, the one such block, the first table.
	h := qcowHeader{
		Magic: [4]byte([]byte(qcowMagic)), Version: 3, ClusterBits: clusterBits, Size: uint64(size), L1Size: uint32(l1),
		L1Offset: 3 * cluster, RefcountOffset: cluster, RefcountClusters: 1, RefcountBits: 4, Length: 104,
	}
	var head bytes.Buffer
	if err := binary.Write(&head, binary.BigEndian, h); err != nil {
		return err
	}
	counts := bytes.Repeat([]byte{0, 1}, int(3+tables))
	for _, part := range []struct {
		data []byte
		at   int64
	}{
		{head.Bytes(), 0},
		{binary.BigEndian.AppendUint64(nil, 2*cluster), cluster},
		{counts, 2 * cluster},
		// What is between is zero, which means that nothing is written yet.
		{make([]byte, 8), (3+tables)*cluster - 8},
	} {
		if _, err := w.WriteAt(part.data, part.at); err != nil {
			return err
		}
	}
	return nil
}

// An ImageHeader is what a qcow2 image says of itself.
type ImageHeader struct {
	Size    caisson.Bytes // of the disk that it is
	Backing string        // the file that it says lies below it; empty: none
}

// CheckQcow2 reads the header of an image that anybody may have made, and refuses
// what could have QEMU open another file, or make one of any size. What it says
// lies below is for the caller to compare, and never followed.
//
// Errors: ErrInvalid if it is no qcow2, or one that is refused.
func CheckQcow2(r io.ReaderAt, limit caisson.Bytes) (ImageHeader, error) {
	h, i, err := readQcow2(r)
	switch {
	case err != nil:
	case h.Incompatible&qcowData != 0:
		err = errors.New("its data is in another file")
	case h.Incompatible&(qcowDirty|qcowCorrupt) != 0:
		err = errors.New("it was not closed in order, or is damaged")
	case h.Incompatible&^(qcowCompress|qcowL2) != 0:
		err = fmt.Errorf("it has features %#x that nobody here knows", h.Incompatible)
	case h.Crypt != 0:
		err = errors.New("it is encrypted")
	case h.Size > uint64(limit):
		err = fmt.Errorf("its disk of %d bytes is larger than the %d that are allowed", h.Size, limit)
	}
	if err != nil {
		return ImageHeader{}, &caisson.Error{Op: caisson.OpPrepare, Item: "qcow2", Kind: caisson.ErrInvalid, Err: err}
	}
	return i, nil
}

// readQcow2 reads the header with the name that it points to.
func readQcow2(r io.ReaderAt) (h qcowHeader, i ImageHeader, err error) {
	err = binary.Read(io.NewSectionReader(r, 0, 104), binary.BigEndian, &h)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return h, i, errors.New("it is truncated")
	}
	switch {
	case err != nil:
		return h, i, err
	case string(h.Magic[:]) != qcowMagic:
		return h, i, errors.New("it is none")
	case h.Version == 2:
		// What follows is no part of its header.
		h.Incompatible, h.Compatible, h.Autoclear = 0, 0, 0
	case h.Version != 3:
		return h, i, fmt.Errorf("version %d is not known", h.Version)
	}
	i.Size = caisson.Bytes(h.Size)
	if h.BackingOffset == 0 {
		return h, i, nil
	}
	// The format's own limits.
	if h.BackingSize > 1023 || h.BackingOffset > 1<<21 {
		return h, i, errors.New("the name of what lies below is out of place")
	}
	name := make([]byte, h.BackingSize)
	if _, err := r.ReadAt(name, int64(h.BackingOffset)); err != nil {
		return h, i, errors.New("it is truncated")
	}
	i.Backing = string(name)
	return h, i, nil
}
