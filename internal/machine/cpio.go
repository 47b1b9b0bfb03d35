package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// An archive writes a cpio archive in the form that the kernel unpacks as the
// first root file system: newc. The same calls write the same bytes: owners are
// 0, times are 0, and inodes are numbered.
type archive struct {
	w    io.Writer
	err  error // the first one; nothing is written after it
	size int64
	ino  uint32
	has  map[string]bool // names, true for folders
}

func newArchive(w io.Writer) *archive { return &archive{w: w, has: map[string]bool{}} }

// The types of files, in the upper bits of a mode.
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

// maxFile bounds a file: the format has 32 bits for its size.
const maxFile = 1<<32 - 1

// An entry is one member of an archive.
type entry struct {
	name         string // relative, with slashes
	mode         uint32 // with the type
	size         int64
	major, minor uint32 // of a device
}

// dir adds a folder, and those that it is in.
func (a *archive) dir(name string, perm uint32) {
	a.add(&entry{name: name, mode: typeDir | perm}, nil)
}

// device adds a character device.
func (a *archive) device(name string, perm, major, minor uint32) {
	a.add(&entry{name: name, mode: typeChar | perm, major: major, minor: minor}, nil)
}

// file adds a file of exactly size bytes, and the folders that it is in.
func (a *archive) file(name string, perm uint32, size int64, r io.Reader) {
	a.add(&entry{name: name, mode: typeFile | perm, size: size}, r)
}

// bytes adds a file.
func (a *archive) bytes(name string, perm uint32, data []byte) {
	a.file(name, perm, int64(len(data)), bytes.NewReader(data))
}

// add writes an entry with its contents.
func (a *archive) add(e *entry, r io.Reader) {
	if a.err == nil {
		a.err = a.check(e)
	}
	if a.err != nil {
		return
	}
	if parent := path.Dir(e.name); parent != "." && !a.has[parent] {
		a.dir(parent, 0o755)
	}
	a.has[e.name] = e.mode&^0o7777 == typeDir
	a.head(e)
	a.body(e, r)
}

// check refuses what the kernel would unpack in another way than is meant.
func (a *archive) check(e *entry) error {
	if e.name == "" || e.name == "." || e.name != path.Clean(e.name) || path.IsAbs(e.name) || strings.HasPrefix(e.name, "../") || e.name == ".." ||
		strings.ContainsRune(e.name, 0) || len(e.name) > 4000 || e.name == trailer {
		return fmt.Errorf("initramfs: %q can't be a name", e.name)
	}
	if _, twice := a.has[e.name]; twice {
		return fmt.Errorf("initramfs: %s: there are two of it", e.name)
	}
	for parent := path.Dir(e.name); parent != "."; parent = path.Dir(parent) {
		if isDir, there := a.has[parent]; there && !isDir {
			return fmt.Errorf("initramfs: %s: %s is not a folder", e.name, parent)
		}
	}
	if e.size < 0 || e.size > maxFile {
		return fmt.Errorf("initramfs: %s: %d bytes are more than the format has", e.name, e.size)
	}
	return nil
}

// head writes the entry's header and name, to a border of four bytes.
func (a *archive) head(e *entry) {
	a.ino++
	links := 1
	if e.mode&^0o7777 == typeDir {
		links = 2
	}
	// inode, mode, user, group, links, time, size, device, device's own, name, checksum
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, e.mode, 0, 0, links, 0, e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name))
	a.pad()
}

// body writes the entry's contents, to a border of four bytes.
func (a *archive) body(e *entry, r io.Reader) {
	if a.err != nil || r == nil {
		return
	}
	n, err := io.Copy(writer{a}, io.LimitReader(r, e.size+1))
	switch {
	case err != nil:
		a.err = fmt.Errorf("initramfs: %s: %w", e.name, err)
	case n != e.size:
		a.err = fmt.Errorf("initramfs: %s: its size has changed", e.name)
	}
	a.pad()
}

// writer counts what is copied into an archive.
type writer struct{ a *archive }

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	n, err := w.a.w.Write(p)
	w.a.size += int64(n)
	return n, err
}

func (a *archive) write(data []byte) {
	if a.err == nil {
		_, a.err = writer{a}.Write(data)
	}
}

func (a *archive) pad() {
	var zero [4]byte
	if n := a.size % 4; n != 0 {
		a.write(zero[n:])
	}
}

// trailer is the name of the entry that ends an archive.
const trailer = "TRAILER!!!"

// close ends the archive. What it is written to stays open.
func (a *archive) close() error {
	if a.err == nil && a.ino == 0 {
		return errors.New("initramfs: there is nothing in it")
	}
	a.ino = 0
	a.head(&entry{name: trailer})
	return a.err
}
