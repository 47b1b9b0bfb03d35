//go:build unix

package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// TreeOptions says how a tree becomes a disk.
type TreeOptions struct {
	Options
	// MaxEntries is the most files, folders and names that the tree may have. 0:
	// two million.
	MaxEntries int
	// MaxBytes is the most that the disk may take, what describes the file system
	// and holes counted. 0: 128 GiB.
	MaxBytes caisson.Bytes
	// Size makes it a file system that can be written to, at least so large, with
	// inodes as Format gives them. 0: it has room for the tree alone.
	Size caisson.Bytes
	// Add are files that the file system has besides the tree's, in this order.
	Add []Added
	// Change changes what a file of the tree has: its owner and the bits of its
	// mode, and nothing else counts. A user's tree has one owner, and the files may
	// have had others. It is called once for each name, in the order of
	// safefs.Root.Walk; of several names of a file the first one counts. An error
	// ends the writing. Nil: as it is.
	Change func(path string, info *safefs.Info) error
}

// An Added is a file, a folder or a symbolic link that belongs to user 0 and has
// no time. Folders that it lies in are made where the tree has none.
type Added struct {
	Path string // relative and clean
	Mode fs.FileMode
	Data []byte // of a regular file
	Link string // of a symbolic link
}

// A Summary is what became of a tree.
type Summary struct {
	Size    caisson.Bytes // of the disk, holes counted
	Entries int           // names on it
	// Skipped are the names of devices and sockets, which are left out: a guest
	// makes its own. At most 100.
	Skipped []string
}

const (
	defaultEntries = 2_000_000
	defaultBytes   = 128 * caisson.GiB
	maxSkipped     = 100
	copyChunk      = 512 << 10
)

// WriteTree writes everything in the tree root to the new and empty file f, as
// a file system that, without a size, can't be written to. Names, modes, owners, times, links
// of both kinds, FIFOs, holes, file capabilities and users' extended attributes
// are kept. Nothing is followed and no name leads out of the tree, whatever is
// in it; nobody else may change it meanwhile. After an error f holds nothing of
// use.
//
// Errors: ErrInvalid if there is more than the options permit, or the tree
// changes; ErrUnsupported for a file that ext4 can't have; ErrExhausted for a
// full disk.
func WriteTree(ctx context.Context, f *os.File, root *safefs.Root, opts *TreeOptions) (*Summary, error) {
	w := &treeWriter{ctx: ctx, f: f, root: root, opts: TreeOptions{MaxEntries: defaultEntries, MaxBytes: defaultBytes}}
	if opts != nil {
		w.opts = *opts
		if opts.MaxEntries == 0 {
			w.opts.MaxEntries = defaultEntries
		}
		if opts.MaxBytes == 0 {
			w.opts.MaxBytes = defaultBytes
		}
	}
	if err := w.run(); err != nil {
		return nil, safefs.Sorted("", "disk of "+root.Name(), err)
	}
	w.sum.Size = caisson.Bytes(w.t.blocks * blockSize)
	return &w.sum, nil
}

type treeWriter struct {
	ctx  context.Context
	f    *os.File
	root *safefs.Root
	opts TreeOptions
	t    *table
	sum  Summary

	names  map[uint64]int // nodes of files with several names, by their inodes
	dirs   map[string]int // nodes of folders, if anything is added
	added  []int          // nodes of what is added
	at     []string       // the folder that is being read, and those above it
	in     []int          // their nodes
	copied int            // how many nodes were copied
	buf    []byte
}

// run reads the tree twice: once to know everything that is in it, and then to
// copy the contents of files.
func (w *treeWriter) run() error {
	w.t, w.names = newTable(&w.opts.Options), map[uint64]int{}
	w.t.only = w.opts.Size == 0
	if len(w.opts.Add) > 0 {
		w.dirs = map[string]int{}
	}
	if err := w.walk(w.note); err != nil {
		return err
	}
	for i := range w.opts.Add {
		if err := w.add(&w.opts.Add[i]); err != nil {
			return err
		}
	}
	w.t.place()
	if err := w.t.arrange(int64(w.opts.Size)/blockSize, int(int64(w.opts.Size)/bytesPerInode)); err != nil {
		return err
	}
	if size := caisson.Bytes(w.t.blocks * blockSize); size > w.opts.MaxBytes {
		return invalid("%s, more than the %s that are permitted", size, w.opts.MaxBytes)
	}
	if err := w.f.Truncate(w.t.blocks * blockSize); err != nil {
		return err
	}
	w.buf, w.copied = make([]byte, copyChunk), 0
	if err := w.walk(w.copy); err != nil {
		return err
	}
	for i, index := range w.added {
		if _, err := safefs.WriteSparse(w.f, w.opts.Add[i].Data, (w.t.first+w.t.nodes[index].block)*blockSize); err != nil {
			return err
		}
	}
	return w.t.write(w.f)
}

func (w *treeWriter) walk(each func(*safefs.Entry) error) error {
	err := w.root.Walk(w.ctx, ".", &safefs.WalkOptions{MaxEntries: w.opts.MaxEntries}, each)
	if errors.Is(err, safefs.ErrTooMany) {
		return invalid("more than %d entries, which are permitted", w.opts.MaxEntries)
	}
	return err
}

// note takes an entry into the table.
func (w *treeWriter) note(e *safefs.Entry) error {
	kind, info := kindOf(e.Mode), e.Info
	if w.opts.Change != nil {
		if err := w.opts.Change(e.Path, &info); err != nil {
			return err
		}
	}
	if kind == 0 {
		if len(w.sum.Skipped) < maxSkipped {
			w.sum.Skipped = append(w.sum.Skipped, e.Path)
		}
		return nil
	}
	w.sum.Entries++
	if index, ok := w.names[e.Ino]; ok && e.Links > 1 && kind != kindDir && w.t.nodes[index].links < maxLinks {
		w.t.nodes[index].links++
		w.name(e, index, kind)
		return nil
	}
	n, err := w.node(e, &info)
	if err != nil {
		return fmt.Errorf("%q: %w", shorten(e.Path), err)
	}
	if e.Path == "." {
		w.t.add(*n)
		w.at, w.in = []string{"."}, []int{0}
		w.folder(".", 0)
		return nil
	}
	index := w.t.add(*n)
	if e.Links > 1 && kind != kindDir {
		w.names[e.Ino] = index
	}
	parent := w.name(e, index, kind)
	if kind == kindDir {
		w.t.nodes[index].parent = parent
		w.t.nodes[parent].links++
		w.at, w.in = append(w.at, e.Path), append(w.in, index)
		w.folder(e.Path, index)
	}
	return nil
}

// folder remembers where a folder is, if anything will be added.
func (w *treeWriter) folder(name string, index int) {
	if w.dirs != nil {
		w.dirs[name] = index
	}
}

// add takes a file into the table that the tree does not have.
func (w *treeWriter) add(a *Added) error {
	if !fs.ValidPath(a.Path) || a.Path == "." {
		return invalid("%q: no clean path to be added", shorten(a.Path))
	}
	parent, err := w.parent(path.Dir(a.Path))
	if err != nil {
		return err
	}
	mode := a.Mode
	kind := kindOf(mode)
	n := node{links: 1, mode: nodeTypes[kind] | uint16(safefs.SysMode(mode))}
	switch kind {
	case kindFile:
		n.size = int64(len(a.Data))
	case kindLink:
		n.target, n.size = a.Link, int64(len(a.Link))
	case kindDir:
		n.links, n.parent = 2, parent
	}
	index, err := w.attach(parent, a.Path, n, kind)
	if err == nil {
		w.added = append(w.added, index)
	}
	return err
}

// parent returns the node of a folder, which is made if the tree has none.
func (w *treeWriter) parent(name string) (int, error) {
	if index, ok := w.dirs[name]; ok {
		return index, nil
	}
	above, err := w.parent(path.Dir(name))
	if err != nil {
		return 0, err
	}
	return w.attach(above, name, node{links: 2, mode: modeDir | 0o755, parent: above}, kindDir)
}

// attach gives a new node its name in a folder.
func (w *treeWriter) attach(parent int, name string, n node, kind byte) (int, error) {
	base := path.Base(name)
	for _, e := range w.t.nodes[parent].entries {
		if e.name == base {
			return 0, invalid("%q: the tree has it, and it was to be added", shorten(name))
		}
	}
	index := w.t.add(n)
	w.t.nodes[parent].entries = append(w.t.nodes[parent].entries, entry{base, w.t.number(index), kind})
	if kind == kindDir {
		w.t.nodes[parent].links++
		w.dirs[name] = index
	}
	w.sum.Entries++
	return index, nil
}

// name gives a node a name in its folder, and returns the folder's node.
func (w *treeWriter) name(e *safefs.Entry, index int, kind byte) (parent int) {
	for dir := path.Dir(e.Path); w.at[len(w.at)-1] != dir; {
		w.at, w.in = w.at[:len(w.at)-1], w.in[:len(w.in)-1]
	}
	parent = w.in[len(w.in)-1]
	folder := &w.t.nodes[parent]
	folder.entries = append(folder.entries, entry{e.Name, w.t.number(index), kind})
	return parent
}

// kindOf returns what a file is in a folder's entry, 0 for what a disk does not
// have.
func kindOf(mode fs.FileMode) byte {
	switch {
	case mode.IsRegular():
		return kindFile
	case mode.IsDir():
		return kindDir
	case mode&fs.ModeSymlink != 0:
		return kindLink
	case mode&fs.ModeNamedPipe != 0:
		return kindFIFO
	}
	return 0
}

var nodeTypes = map[byte]uint16{kindFile: modeFile, kindDir: modeDir, kindLink: modeLink, kindFIFO: modeFIFO}

// node returns what an entry's inode will say. The owner and the mode are info's.
func (w *treeWriter) node(e *safefs.Entry, info *safefs.Info) (*node, error) {
	kind := kindOf(e.Mode)
	n := &node{
		host: e.Ino, links: 1, uid: uint32(info.UID), gid: uint32(info.GID), nsec: uint32(info.ModTime.Nanosecond()),
		mode: nodeTypes[kind] | uint16(safefs.SysMode(info.Mode)),
	}
	// What an inode has room for: 1901 to 2446.
	n.sec = min(max(info.ModTime.Unix(), -1<<31), 1<<34-1<<31-1)
	var err error
	switch kind {
	case kindDir:
		n.links = 2
		err = w.attributes(n, e)
	case kindFile:
		if n.size = e.Size; n.size > maxFile {
			return nil, &caisson.Error{Kind: caisson.ErrUnsupported, Err: errLarge}
		}
		err = w.attributes(n, e)
	case kindLink:
		n.target, err = e.ReadLink()
		if n.size = int64(len(n.target)); err == nil && n.size >= blockSize {
			err = &caisson.Error{Kind: caisson.ErrUnsupported, Err: errLarge}
		}
	}
	return n, err
}

// attributes takes the extended attributes of a file or folder.
func (w *treeWriter) attributes(n *node, e *safefs.Entry) error {
	all, err := w.root.Xattrs(e.Path, "")
	if errors.Is(err, unix.ENOTSUP) {
		return nil // nor has the file system any
	}
	if err != nil {
		return err
	}
	data, err := encodeAttrs(all)
	if err == nil && data != nil {
		w.t.attrs = append(w.t.attrs, attrBlock{data: data})
		n.attr = len(w.t.attrs)
	}
	return err
}

// copy copies the contents of an entry, unless another name of it was there
// before.
func (w *treeWriter) copy(e *safefs.Entry) error {
	if kindOf(e.Mode) == 0 {
		return nil
	}
	if w.copied < len(w.t.nodes) && w.t.nodes[w.copied].host == e.Ino {
		n := &w.t.nodes[w.copied]
		w.copied++
		if n.mode&modeType != modeFile {
			return nil
		}
		if err := w.contents(e, n); err != nil {
			return fmt.Errorf("%q: %w", shorten(e.Path), err)
		}
		return nil
	}
	if index, ok := w.names[e.Ino]; ok && index < w.copied {
		return nil
	}
	return fmt.Errorf("%q: %w", shorten(e.Path), safefs.ErrChanged)
}

// contents copies a file but for its blocks of zeros.
func (w *treeWriter) contents(e *safefs.Entry, n *node) error {
	src, err := e.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	at, left := (w.t.first+n.block)*blockSize, n.size
	for {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		got, err := io.ReadFull(src, w.buf)
		if int64(got) > left {
			return safefs.ErrChanged
		}
		if _, err := safefs.WriteSparse(w.f, w.buf[:got], at); err != nil {
			return err
		}
		at, left = at+int64(got), left-int64(got)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if left > 0 {
				return safefs.ErrChanged
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// shorten keeps a name from filling a line.
func shorten(name string) string {
	if len(name) > 200 {
		return strings.ToValidUTF8(name[:200], "") + "..."
	}
	return name
}
