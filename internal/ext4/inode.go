//go:build unix

package ext4

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
)

// Types of files in an inode's mode, which are the system's.
const (
	modeType = 0o170000
	modeFIFO = 0o010000
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

// Types of files in a folder's entry.
const (
	kindFile = 1
	kindDir  = 2
	kindFIFO = 5
	kindLink = 7
)

const (
	flagExtents = 0x80000
	extraSize   = 32 // of an inode behind its first 128 bytes
	fastLink    = 60 // from here on a link's target has a block of its own
	// maxLinks is how many names a file can have. A folder with more others in
	// it says 1: it is not known.
	maxLinks = 65000

	extentBlocks = 32768 // of an extent
	inInode      = 4     // extents
	inLeaf       = (blockSize - 12) / 12
	extentMagic  = 0xf30a
	// maxFile is what an inode with one level of leaves can have.
	maxFile = inInode * inLeaf * extentBlocks * blockSize
)

// A node is what an inode will say.
type node struct {
	host     uint64 // the inode in the tree that it is made of
	size     int64
	sec      int64 // of its last change
	nsec     uint32
	uid, gid uint32
	links    uint32
	block    int64 // first one of its contents, counted from the first one of data
	attr     int   // index of its block of attributes, plus one
	parent   int   // of a folder
	mode     uint16
	target   string  // of a symbolic link
	entries  []entry // of a folder
}

// An entry is a name in a folder.
type entry struct {
	name  string
	inode uint32
	kind  byte
}

func entrySize(name string) int64 { return int64(8+len(name)+3) &^ 3 }

// dirBlocks returns how many blocks the entries of a folder need. No entry
// crosses the end of a block.
func dirBlocks(entries []entry) int64 {
	blocks, at := int64(1), entrySize(".")+entrySize("..")
	for i := range entries {
		size := entrySize(entries[i].name)
		if at+size > blockSize {
			blocks, at = blocks+1, 0
		}
		at += size
	}
	return blocks
}

// writeNode writes what a folder or a long link has in blocks.
func (t *table) writeNode(f *os.File, index int) error {
	n := &t.nodes[index]
	if n.mode&modeType == modeFile || n.mode&modeType == modeDir {
		if err := t.writeLeaves(f, n); err != nil {
			return err
		}
	}
	at := (t.first + n.block) * blockSize
	switch n.mode & modeType {
	case modeDir:
		_, err := f.WriteAt(t.folder(index), at)
		return err
	case modeLink:
		if n.size >= fastLink {
			_, err := f.WriteAt([]byte(n.target), at)
			return err
		}
	}
	return nil
}

// folder returns the contents of a folder.
func (t *table) folder(index int) []byte {
	n := &t.nodes[index]
	b := make([]byte, n.size)
	last, at := 0, 0
	put := func(e *entry) {
		size := int(entrySize(e.name))
		if at%blockSize+size > blockSize {
			at = (at/blockSize + 1) * blockSize
			binary.LittleEndian.PutUint16(b[last+4:], uint16(at-last))
		}
		binary.LittleEndian.PutUint32(b[at:], e.inode)
		binary.LittleEndian.PutUint16(b[at+4:], uint16(size))
		b[at+6], b[at+7] = byte(len(e.name)), e.kind
		copy(b[at+8:], e.name)
		last, at = at, at+size
	}
	put(&entry{".", t.number(index), kindDir})
	put(&entry{"..", t.number(n.parent), kindDir})
	for i := range n.entries {
		put(&n.entries[i])
	}
	binary.LittleEndian.PutUint16(b[last+4:], uint16(len(b)-last))
	return b
}

// leaves returns how many blocks list the extents of so many bytes.
func leaves(size int64) int64 {
	extents := ceil(blocksOf(size), extentBlocks)
	if extents <= inInode {
		return 0
	}
	return ceil(extents, inLeaf)
}

// writeLeaves writes the blocks that list a large file's extents. They are
// directly before its contents.
func (t *table) writeLeaves(f *os.File, n *node) error {
	count := leaves(n.size)
	for i := range count {
		b := make([]byte, blockSize)
		from := i * inLeaf * extentBlocks
		t.putExtents(b, inLeaf, n, from, min(blocksOf(n.size)-from, inLeaf*extentBlocks))
		if _, err := f.WriteAt(b, (t.first+n.block-count+i)*blockSize); err != nil {
			return err
		}
	}
	return nil
}

// putExtents lists count blocks of a file from its block from on.
func (t *table) putExtents(b []byte, room int, n *node, from, count int64) {
	putExtentHeader(b, int(ceil(count, extentBlocks)), room, 0)
	for at := 12; count > 0; at += 12 {
		length := min(count, extentBlocks)
		start := t.first + n.block + from
		binary.LittleEndian.PutUint32(b[at:], uint32(from))
		binary.LittleEndian.PutUint16(b[at+4:], uint16(length))
		binary.LittleEndian.PutUint16(b[at+6:], uint16(start>>32))
		binary.LittleEndian.PutUint32(b[at+8:], uint32(start))
		from, count = from+length, count-length
	}
}

func putExtentHeader(b []byte, entries, room, depth int) {
	binary.LittleEndian.PutUint16(b[0:], extentMagic)
	binary.LittleEndian.PutUint16(b[2:], uint16(entries))
	binary.LittleEndian.PutUint16(b[4:], uint16(room))
	binary.LittleEndian.PutUint16(b[6:], uint16(depth))
}

// putRoot puts the beginning of a file's extents into its inode.
func (t *table) putRoot(b []byte, n *node) {
	count := leaves(n.size)
	if count == 0 {
		t.putExtents(b, inInode, n, 0, blocksOf(n.size))
		return
	}
	putExtentHeader(b, int(count), inInode, 1)
	for i := range count {
		at := 12 + 12*i
		leaf := t.first + n.block - count + i
		binary.LittleEndian.PutUint32(b[at:], uint32(i*inLeaf*extentBlocks))
		binary.LittleEndian.PutUint32(b[at+4:], uint32(leaf))
		binary.LittleEndian.PutUint16(b[at+8:], uint16(leaf>>32))
	}
}

// writeInodes writes all inodes. Those of the groups follow each other, so that
// they are one list.
func (t *table) writeInodes(f *os.File) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, t.tableFrom*blockSize), 256<<10)
	empty := make([]byte, inodeSize)
	for number := uint32(1); number < firstInode; number++ {
		b := empty
		if number == rootInode {
			b = t.inode(0)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	for i := 1; i < len(t.nodes); i++ {
		if _, err := w.Write(t.inode(i)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// inode returns a node as it is on the disk.
func (t *table) inode(index int) []byte {
	n := &t.nodes[index]
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	le.PutUint16(b[0x00:], n.mode)
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(n.size))
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], linkCount(n))
	le.PutUint32(b[0x6c:], uint32(n.size>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], extraSize)
	for _, at := range [][2]int{{0x08, 0x8c}, {0x0c, 0x84}, {0x10, 0x88}, {0x90, 0x94}} { // read, inode, contents, birth
		le.PutUint32(b[at[0]:], uint32(n.sec))
		le.PutUint32(b[at[1]:], uint32((n.sec-int64(int32(n.sec)))>>32)&3|n.nsec<<2)
	}
	blocks := t.putContents(b, n)
	if n.attr > 0 {
		le.PutUint32(b[0x68:], uint32(t.first+t.attrs[n.attr-1].block))
		blocks++
	}
	sectors := blocks * (blockSize / 512)
	le.PutUint32(b[0x1c:], uint32(sectors))
	return b
}

// putContents says where a node's contents are, and returns how many blocks
// they take.
func (t *table) putContents(b []byte, n *node) (blocks int64) {
	switch n.mode & modeType {
	case modeFIFO:
		return 0
	case modeLink:
		if n.size < fastLink {
			copy(b[0x28:], n.target)
			return 0
		}
	}
	binary.LittleEndian.PutUint32(b[0x20:], flagExtents)
	t.putRoot(b[0x28:], n)
	return blocksOf(n.size) + leaves(n.size)
}

func linkCount(n *node) uint16 {
	if n.links > maxLinks {
		return 1
	}
	return uint16(n.links)
}
