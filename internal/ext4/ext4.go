//go:build unix

// Package ext4 writes file systems for guests without root and without
// programs: an image's root file system as a disk that nobody writes to, and
// an empty one. What it writes depends on what is asked for alone, not on the
// host, the clock or the order of folders.
//
// All that describes the file system comes first, then what folders, links and
// attributes need, then files one after the other, so that everything is known
// before the first byte is written. Features are few: extents, no journal, no
// checksums, folders without an index. Linux has mounted that since 3.16.
package ext4

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/caissonrun/caisson"
)

// The geometry, which is the same for all sizes.
const (
	blockSize  = 4096
	groupSize  = 8 * blockSize // blocks, and at most so many inodes, of a group
	inodeSize  = 256
	perBlock   = blockSize / inodeSize
	descSize   = 32
	firstInode = 11 // those before it are the file system's own
	rootInode  = 2
	// bytesPerInode is for disks that are written to, as for disk limits.
	bytesPerInode = 16 << 10
	// maxBlocks keeps block numbers within 32 bits with room to spare: 8 TiB.
	maxBlocks = 1 << 31
)

// Features, by the kernel's names.
const (
	compatExtAttr      = 0x8
	compatSparseSuper2 = 0x200 // without groups named: no copies of the superblock
	incompatFiletype   = 0x2
	incompatExtents    = 0x40
	incompatFlexBG     = 0x200 // bitmaps and tables may stand anywhere
	roSparseSuper      = 0x1
	roLargeFile        = 0x2
	roDirNlink         = 0x20
	roExtraIsize       = 0x40
	roReadonly         = 0x1000
)

// Options says what a file system is called.
type Options struct {
	// Name tells file systems apart: their UUIDs are made of it. It need not be
	// unique.
	Name string
	// Label is shown by tools, at most 16 bytes. Empty: none.
	Label string
}

// Format makes an empty file system of size bytes in the new and empty file f,
// rounded down to a block. Until it is written to, it takes 4 KiB for each
// 128 MiB, and making it takes a few milliseconds. The root folder belongs to user 0 and has mode 0755.
//
// Errors: ErrInvalid for a size that is too small or too large.
func Format(f *os.File, size caisson.Bytes, opts *Options) error {
	blocks := int64(size) / blockSize
	if blocks > maxBlocks {
		return invalid("%s: more than the %s that a disk can have", size, caisson.Bytes(maxBlocks*blockSize))
	}
	t := newTable(opts)
	root := t.add(node{mode: modeDir | 0o755, links: 2})
	t.nodes[root].entries = []entry{{name: "lost+found", inode: t.number(t.add(node{mode: modeDir | 0o700, links: 2, parent: root})), kind: kindDir}}
	t.nodes[root].links++
	t.place()
	if err := t.arrange(blocks, int(min(blocks*blockSize/bytesPerInode, maxBlocks))); err != nil {
		return err
	}
	if t.blocks != blocks {
		return invalid("%s: too small for a file system", size)
	}
	return t.write(f)
}

func invalid(format string, args ...any) error {
	return &caisson.Error{Item: "disk", Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// A table is a file system that is being made: everything but the contents of
// files.
type table struct {
	opts  Options
	only  bool // nobody may write to it
	nodes []node

	attrs []attrBlock // extended attributes, a block for each file that has any
	data  int64       // blocks behind what describes the file system

	// What arrange finds.
	groups    int64
	perGroup  int64 // inodes of a group
	blocks    int64 // of everything
	first     int64 // block behind what describes the file system
	tableFrom int64 // block of the first inode
}

func newTable(opts *Options) *table {
	t := new(table)
	if opts != nil {
		t.opts = *opts
	}
	return t
}

// add adds a node and returns its index. The first one is the root.
func (t *table) add(n node) int {
	t.nodes = append(t.nodes, n)
	return len(t.nodes) - 1
}

// number returns the inode of a node.
func (t *table) number(index int) uint32 {
	if index == 0 {
		return rootInode
	}
	return uint32(firstInode + index - 1)
}

// used is how many inodes are in use, those of the file system itself among
// them.
func (t *table) used() int64 { return int64(len(t.nodes)) + firstInode - 2 }

// place gives all nodes their blocks, counted from the first one of data.
// Everything but files comes first.
func (t *table) place() {
	for i := range t.nodes {
		n := &t.nodes[i]
		switch n.mode & modeType {
		case modeDir:
			n.size = dirBlocks(n.entries) * blockSize
			t.take(n)
		case modeLink:
			if n.size >= fastLink {
				t.take(n)
			}
		}
	}
	for i := range t.attrs {
		t.attrs[i].block = t.data
		t.data++
	}
	for i := range t.nodes {
		if n := &t.nodes[i]; n.mode&modeType == modeFile {
			t.take(n)
		}
	}
}

// take gives a node the next blocks: those that list its extents, if there are
// more than an inode has room for, and then its contents.
func (t *table) take(n *node) {
	n.block = t.data + leaves(n.size)
	t.data = n.block + blocksOf(n.size)
}

func blocksOf(size int64) int64 { return (size + blockSize - 1) / blockSize }

// arrange finds out how many groups there are and how large everything is, for
// at least so many blocks and inodes.
func (t *table) arrange(least int64, inodes int) error {
	want := max(int64(inodes), t.used())
	for t.groups = max(1, ceil(want, groupSize)); ; {
		t.perGroup = ceil(ceil(want, t.groups), perBlock) * perBlock
		t.tableFrom = 1 + ceil(t.groups*descSize, blockSize) + 2*t.groups
		t.first = t.tableFrom + t.groups*t.perGroup/perBlock
		// The last group must be there.
		t.blocks = max(t.first+t.data, least, (t.groups-1)*groupSize+1)
		if t.blocks > maxBlocks {
			return invalid("more than the %s that a disk can have", caisson.Bytes(maxBlocks*blockSize))
		}
		groups := ceil(t.blocks, groupSize)
		if groups <= t.groups {
			return nil
		}
		t.groups = groups
	}
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

// write writes everything but the contents of files.
func (t *table) write(f *os.File) error {
	if err := f.Truncate(t.blocks * blockSize); err != nil {
		return err
	}
	if err := t.writeGroups(f); err != nil {
		return err
	}
	if err := t.writeInodes(f); err != nil {
		return err
	}
	for i := range t.nodes {
		if err := t.writeNode(f, i); err != nil {
			return err
		}
	}
	for i := range t.attrs {
		a := &t.attrs[i]
		if _, err := f.WriteAt(a.data, (t.first+a.block)*blockSize); err != nil {
			return err
		}
	}
	// The superblock is last: without it this is no file system.
	_, err := f.WriteAt(t.superblock(), 1024)
	return err
}

// writeGroups writes the descriptors of groups and their bitmaps.
func (t *table) writeGroups(f *os.File) error {
	descs := make([]byte, ceil(t.groups*descSize, blockSize)*blockSize)
	bitmaps := 1 + int64(len(descs))/blockSize
	folders := t.foldersByGroup()
	for g := range t.groups {
		freeBlocks, err := t.writeBitmap(f, bitmaps+g, t.first+t.data-g*groupSize, t.blocks-g*groupSize)
		if err != nil {
			return err
		}
		freeInodes, err := t.writeBitmap(f, bitmaps+t.groups+g, t.used()-g*t.perGroup, t.perGroup)
		if err != nil {
			return err
		}
		d := descs[g*descSize:]
		binary.LittleEndian.PutUint32(d[0x00:], uint32(bitmaps+g))
		binary.LittleEndian.PutUint32(d[0x04:], uint32(bitmaps+t.groups+g))
		binary.LittleEndian.PutUint32(d[0x08:], uint32(t.tableFrom+g*t.perGroup/perBlock))
		binary.LittleEndian.PutUint16(d[0x0c:], uint16(freeBlocks))
		binary.LittleEndian.PutUint16(d[0x0e:], uint16(freeInodes))
		binary.LittleEndian.PutUint16(d[0x10:], uint16(folders[g]))
	}
	_, err := f.WriteAt(descs, blockSize)
	return err
}

// writeBitmap writes the bitmap of a group of which the first used of total are
// in use, and returns how many are free. What is beyond total is marked as used.
func (t *table) writeBitmap(f *os.File, block, used, total int64) (free int64, err error) {
	total = min(total, groupSize)
	used = min(max(used, 0), total)
	if used > 0 || total < groupSize {
		bits := make([]byte, blockSize)
		setBits(bits, 0, used)
		setBits(bits, total, groupSize)
		_, err = f.WriteAt(bits, block*blockSize)
	}
	return total - used, err
}

func setBits(bits []byte, from, to int64) {
	for ; from < to && from%8 != 0; from++ {
		bits[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		bits[from/8] = 0xff
	}
	for ; from < to; from++ {
		bits[from/8] |= 1 << (from % 8)
	}
}

func (t *table) foldersByGroup() []int {
	count := make([]int, t.groups)
	for i := range t.nodes {
		if t.nodes[i].mode&modeType == modeDir {
			count[int64(t.number(i)-1)/t.perGroup]++
		}
	}
	return count
}

// superblock returns the first block's description of everything.
func (t *table) superblock() []byte {
	b := make([]byte, 1024)
	le := binary.LittleEndian
	inodes := t.groups * t.perGroup
	le.PutUint32(b[0x00:], uint32(inodes))
	le.PutUint32(b[0x04:], uint32(t.blocks))
	le.PutUint32(b[0x0c:], uint32(t.blocks-t.first-t.data))
	le.PutUint32(b[0x10:], uint32(inodes-t.used()))
	le.PutUint32(b[0x18:], 2) // blocks of 1024 << 2
	le.PutUint32(b[0x1c:], 2)
	le.PutUint32(b[0x20:], groupSize)
	le.PutUint32(b[0x24:], groupSize)
	le.PutUint32(b[0x28:], uint32(t.perGroup))
	le.PutUint16(b[0x36:], 0xffff) // never check after so many mounts
	le.PutUint16(b[0x38:], 0xef53)
	le.PutUint16(b[0x3a:], 1) // clean
	le.PutUint16(b[0x3c:], 1) // go on after errors
	le.PutUint32(b[0x4c:], 1) // with features
	le.PutUint32(b[0x54:], firstInode)
	le.PutUint16(b[0x58:], inodeSize)
	le.PutUint32(b[0x5c:], compatExtAttr|compatSparseSuper2)
	le.PutUint32(b[0x60:], incompatFiletype|incompatExtents|incompatFlexBG)
	ro := uint32(roSparseSuper | roLargeFile | roDirNlink | roExtraIsize)
	if t.only {
		ro |= roReadonly
	}
	le.PutUint32(b[0x64:], ro)
	uuid := sha256.Sum256([]byte("caisson disk " + t.opts.Name))
	uuid[6], uuid[8] = uuid[6]&0x0f|0x80, uuid[8]&0x3f|0x80 // version 8: made of something of one's own
	copy(b[0x68:0x78], uuid[:])
	copy(b[0x78:0x88], t.opts.Label)
	copy(b[0xec:0xfc], uuid[16:]) // seed for hashes of names
	b[0xfc] = 1                   // half MD4, should a kernel ever make an index
	le.PutUint16(b[0x15c:], extraSize)
	le.PutUint16(b[0x15e:], extraSize)
	le.PutUint32(b[0x160:], 2) // chars are unsigned
	b[0x174] = 4               // groups come in sixteens
	return b
}

// errLarge is what no inode can say.
var errLarge = errors.New("larger than a disk's file can be")
