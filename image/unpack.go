//go:build unix

package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// What layers are told by, see the image layer specification of OCI.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // other bookkeeping of aufs, of no meaning
)

// Bounds of a single entry.
const (
	maxName    = 4095
	maxID      = 65535     // of owners: what a sandbox has ids for
	maxAttrs   = 64        // extended attributes of a file
	maxAttr    = 64 << 10  // bytes of all of them
	smallFile  = 128 << 10 // up to which a file is read at once
	maxSkipped = 100       // names that are told
	maxTime    = 1 << 34   // seconds since 1970: what every file system has
)

// An unpacker puts layers one onto the other in a folder that nobody else has.
// Each entry goes to the folder that its name leads to, links in it followed as
// if the folder were the root of the file system, and replaces what is there;
// only folders are merged.
type unpacker struct {
	ctx    context.Context
	root   *safefs.Root
	limits Limits
	setID  bool // set-id bits are kept
	owned  bool // files get the ids that layers name, not the caller's

	entries  int
	bytes    int64             // of files
	most     int64             // of files, once this layer is done
	streamed int64             // of tar streams
	folders  map[uint64]folder // by inode: what they get at the end
	made     map[uint64]bool   // inodes that this layer has made, named, or something in
	touched  map[string]bool   // names of folders that this layer has something in
	skipped  map[string]bool   // devices
	// lost is what files were to have, by inode, where all of them are the
	// caller's; nil otherwise. owners is that for all of the tree, at the end.
	lost   map[uint64]ownership
	owners []byte
	buf    []byte

	// dir is the folder of the last entry, whose name was at.
	dir *safefs.Root
	at  string
}

// folder is what a folder gets at the end: work in it would change its time, or
// be hindered by its mode.
type folder struct {
	mode  fs.FileMode
	mtime time.Time
}

func newUnpacker(ctx context.Context, root *safefs.Root, limits Limits) *unpacker {
	u := &unpacker{
		ctx: ctx, root: root, limits: limits, owned: os.Geteuid() == 0,
		folders: map[uint64]folder{}, skipped: map[string]bool{}, buf: make([]byte, smallFile),
	}
	if !u.owned {
		u.lost = map[uint64]ownership{}
	}
	return u
}

// layer unpacks one layer.
func (u *unpacker) layer(rd io.Reader) error {
	u.made, u.touched = map[uint64]bool{}, map[string]bool{}
	defer u.leave()
	for tr := tar.NewReader(rd); ; {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return u.damaged(err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.count(); err != nil {
			return err
		}
		if err := u.entry(header, tr); err != nil {
			return err
		}
	}
}

// damaged sorts an error of the stream.
func (u *unpacker) damaged(err error) error {
	if caisson.KindOf(err) != caisson.ErrUnknown || u.ctx.Err() != nil {
		return err
	}
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("damaged: %w", err)}
}

// count counts an entry, or a folder that none names.
func (u *unpacker) count() error {
	if u.entries++; u.entries > u.limits.Entries {
		return overLimit("entries", int64(u.limits.Entries))
	}
	return nil
}

func overLimit(what string, limit int64) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf("more than %d %s, the limit of [image]", limit, what)}
}

// refused is the error of an entry that is not unpacked.
func refused(name, format string, args ...any) error {
	return &caisson.Error{Item: fmt.Sprintf("entry %q", shorten(name)), Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// broken is the error of an entry that could not be unpacked.
func broken(name string, err error) error {
	return safefs.Sorted("", fmt.Sprintf("entry %q", shorten(name)), err)
}

// entryName makes a name in the root of an archive's. Absolute names begin at
// the root; any ".." is refused, whatever it would lead to.
func (u *unpacker) entryName(raw string) (string, error) {
	if len(raw) > maxName {
		return "", refused(raw, "its name is longer than %d bytes", maxName)
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return "", refused(raw, "its name has a zero byte")
	}
	for element := range strings.SplitSeq(raw, "/") {
		if element == ".." {
			return "", refused(raw, "its name leads out of the image")
		}
	}
	name := path.Clean("/" + raw)[1:]
	if name == "" {
		return ".", nil
	}
	if strings.Count(name, "/") >= u.limits.Depth {
		return "", refused(raw, "more than %d folders deep, the limit of [image]", u.limits.Depth)
	}
	return name, nil
}

func (u *unpacker) entry(header *tar.Header, rd io.Reader) error {
	name, err := u.entryName(header.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if header.Typeflag != tar.TypeDir {
			return refused(header.Name, "only a folder can have this name")
		}
		return u.folder(u.root, ".", header)
	}
	in, base := path.Split(name)
	in = path.Clean("./" + in)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(in, base)
	}
	dir, err := u.enter(in)
	if err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return u.folder(dir, base, header)
	case tar.TypeReg, tar.TypeGNUSparse, '\x00':
		return u.file(dir, base, header, rd)
	case tar.TypeSymlink:
		return u.symlink(dir, base, header.Linkname, header)
	case tar.TypeLink:
		return u.hardLink(dir, base, header)
	case tar.TypeFifo:
		return u.fifo(dir, base, header)
	case tar.TypeChar, tar.TypeBlock:
		u.skipped[name] = true
		return u.clear(dir, base, header.Name)
	}
	return refused(header.Name, "its type %q is not known", header.Typeflag)
}

// leave closes the folder of the last entry.
func (u *unpacker) leave() {
	if u.dir != nil {
		u.dir.Close()
		u.dir = nil
	}
}

// enter opens the folder name, and makes it if it is missing. It stays open for
// the next entry, which mostly is in the same.
func (u *unpacker) enter(name string) (*safefs.Root, error) {
	if u.dir != nil && u.at == name {
		return u.dir, nil
	}
	u.leave()
	dir, err := u.root.SubIn(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		dir, err = u.makeFolders(name)
	}
	if err == nil {
		u.dir, u.at = dir, name
		err = u.touch(name)
	}
	if err != nil {
		return nil, broken(name, err)
	}
	return dir, nil
}

// touch remembers that this layer has something in the folder name and those
// above it: they are not hidden as a whole.
func (u *unpacker) touch(name string) error {
	for name != "." && !u.touched[name] {
		dir, err := u.root.SubIn(name)
		if err != nil {
			return err
		}
		err = u.note(dir, ".")
		dir.Close()
		if err != nil {
			return err
		}
		u.touched[name] = true
		name = path.Dir(name)
	}
	return nil
}

// makeFolders makes the folders of name that no entry has named.
func (u *unpacker) makeFolders(name string) (*safefs.Root, error) {
	dir, err := u.root.SubIn(".")
	if err != nil {
		return nil, err
	}
	for i, element := range strings.Split(name, "/") {
		upTo := strings.Join(strings.SplitN(name, "/", i+2)[:i+1], "/")
		next, err := u.root.SubIn(upTo)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			if err = u.makeFolder(dir, element, upTo); err == nil {
				next, err = u.root.SubIn(upTo)
			}
		}
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// makeFolder makes the folder base in dir. A file of a layer below gives way.
func (u *unpacker) makeFolder(dir *safefs.Root, base, name string) error {
	if err := u.count(); err != nil {
		return err
	}
	info, err := dir.Stat(base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode&fs.ModeSymlink != 0:
		return refused(name, "it is a link that leads to no folder, and another entry is to be in it")
	case u.made[info.Ino]:
		return refused(name, "it is no folder, and another entry is to be in it")
	default:
		if err := dir.Remove(base); err != nil {
			return err
		}
	}
	if err := dir.MkdirAll(base, 0o755, u.owner(0, 0)); err != nil {
		return err
	}
	return u.note(dir, base)
}

// note remembers that this layer has named the entry.
func (u *unpacker) note(dir *safefs.Root, base string) error {
	info, err := dir.Stat(base)
	if err == nil {
		u.made[info.Ino] = true
	}
	return err
}

// owner returns who a file is to belong to, nil for the caller.
func (u *unpacker) owner(uid, gid int) *safefs.Owner {
	if !u.owned {
		return nil
	}
	return &safefs.Owner{UID: uid, GID: gid}
}

func (u *unpacker) ownerOf(header *tar.Header) (*safefs.Owner, error) {
	if u.owned && (header.Uid < 0 || header.Uid > maxID || header.Gid < 0 || header.Gid > maxID) {
		return nil, refused(header.Name, "its owner %d:%d is outside of 0 to %d", header.Uid, header.Gid, maxID)
	}
	return u.owner(header.Uid, header.Gid), nil
}

// mode returns the bits that the entry gets, beside its type.
func (u *unpacker) mode(header *tar.Header, least fs.FileMode) fs.FileMode {
	mode := fs.FileMode(header.Mode) & 0o777
	if !u.owned {
		mode |= least // or the caller could neither copy nor remove its own files
	}
	if u.setID && header.Mode&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if u.setID && header.Mode&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	return mode
}

// clear removes what has the name of a new entry.
func (u *unpacker) clear(dir *safefs.Root, base, name string) error {
	if err := dir.RemoveAll(u.ctx, base); err != nil {
		return broken(name, err)
	}
	return nil
}

// finished gives an entry that is no folder its time, and remembers it.
func (u *unpacker) finished(dir *safefs.Root, base string, header *tar.Header) error {
	err := dir.Chtimes(base, timeOf(header))
	if err == nil {
		err = u.note(dir, base)
	}
	if err == nil && u.lost != nil {
		err = u.lose(dir, base, header)
	}
	if err != nil {
		return broken(header.Name, err)
	}
	return nil
}

// lose remembers what a file can't have here.
func (u *unpacker) lose(dir *safefs.Root, base string, header *tar.Header) error {
	info, err := dir.Stat(base)
	if err != nil {
		return err
	}
	mode := u.mode(header, 0)
	switch {
	case info.Mode.IsDir():
		mode |= stickyBit(header)
	case info.Mode&fs.ModeSymlink != 0:
		mode = 0o777 // whatever an archive says: the system knows no other
	}
	u.lost[info.Ino] = newOwnership(header.Uid, header.Gid, mode)
	return nil
}

// stickyBit returns the bit if the entry has it.
func stickyBit(header *tar.Header) fs.FileMode {
	if header.Mode&0o1000 != 0 {
		return fs.ModeSticky
	}
	return 0
}

// timeOf is the time of an entry; nonsense is 1970.
func timeOf(header *tar.Header) time.Time {
	if sec := header.ModTime.Unix(); sec < 0 || sec > maxTime {
		return time.Unix(0, 0)
	}
	return header.ModTime
}

func (u *unpacker) folder(dir *safefs.Root, base string, header *tar.Header) error {
	owner, err := u.ownerOf(header)
	if err != nil {
		return err
	}
	info, err := dir.Stat(base)
	if err == nil && !info.Mode.IsDir() {
		if err := dir.Remove(base); err != nil {
			return broken(header.Name, err)
		}
	}
	if base != "." {
		if err := dir.MkdirAll(base, 0o700, owner); err != nil {
			return broken(header.Name, err)
		}
	}
	if owner != nil {
		err = dir.SetOwner(base, *owner)
	} else {
		err = nil
	}
	if err == nil {
		info, err = dir.Stat(base)
	}
	if err != nil {
		return broken(header.Name, err)
	}
	u.made[info.Ino] = true
	mode := u.mode(header, 0o700) | stickyBit(header)
	if u.lost != nil {
		if err := u.lose(dir, base, header); err != nil {
			return broken(header.Name, err)
		}
	}
	u.folders[info.Ino] = folder{mode: mode, mtime: timeOf(header)}
	u.attributes(dir, base, header)
	return nil
}

func (u *unpacker) file(dir *safefs.Root, base string, header *tar.Header, rd io.Reader) error {
	if header.Size > int64(u.limits.Bytes)-u.bytes {
		return overLimit("bytes", int64(u.limits.Bytes))
	}
	if header.Size > u.most-u.bytes {
		return overLimit("times as many bytes as were sent", int64(u.limits.Ratio))
	}
	u.bytes += header.Size
	owner, err := u.ownerOf(header)
	if err != nil {
		return err
	}
	mode := u.mode(header, 0o400)
	f, err := dir.Create(base, mode, owner)
	if errors.Is(err, fs.ErrExist) {
		if err := u.clear(dir, base, header.Name); err != nil {
			return err
		}
		f, err = dir.Create(base, mode, owner)
	}
	if err != nil {
		return broken(header.Name, err)
	}
	defer f.Close()
	if err := u.contents(f, header.Size, rd); err != nil {
		return broken(header.Name, err)
	}
	if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		if err := f.Chmod(mode); err != nil {
			return broken(header.Name, err)
		}
	}
	u.attributes(dir, base, header)
	if err := f.Close(); err != nil {
		return broken(header.Name, err)
	}
	return u.finished(dir, base, header)
}

// contents fills a new file. Blocks of zeros become holes, so that a file that
// is one large hole takes no room.
func (u *unpacker) contents(f *os.File, size int64, rd io.Reader) error {
	if size > smallFile {
		_, err := safefs.CopySparse(f, &streamReader{rd, u})
		return err
	}
	n, err := io.ReadFull(rd, u.buf[:size])
	if err != nil {
		return u.damaged(err)
	}
	_, err = f.Write(u.buf[:n])
	return err
}

// streamReader tells errors of the stream from those of the file that it is
// copied to, and ends with the call.
type streamReader struct {
	rd io.Reader
	u  *unpacker
}

func (r *streamReader) Read(p []byte) (int, error) {
	if err := r.u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.rd.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.u.damaged(err)
	}
	return n, err
}

func (u *unpacker) symlink(dir *safefs.Root, base, target string, header *tar.Header) error {
	if target == "" || len(target) > maxName || strings.IndexByte(target, 0) >= 0 {
		return refused(header.Name, "its target is no path")
	}
	owner, err := u.ownerOf(header)
	if err != nil {
		return err
	}
	if err := u.clear(dir, base, header.Name); err != nil {
		return err
	}
	if err := dir.Symlink(target, base, owner); err != nil {
		return broken(header.Name, err)
	}
	return u.finished(dir, base, header)
}

func (u *unpacker) fifo(dir *safefs.Root, base string, header *tar.Header) error {
	owner, err := u.ownerOf(header)
	if err != nil {
		return err
	}
	if err := u.clear(dir, base, header.Name); err != nil {
		return err
	}
	if err := dir.Mkfifo(base, u.mode(header, 0o400).Perm(), owner); err != nil {
		return broken(header.Name, err)
	}
	return u.finished(dir, base, header)
}

// hardLink gives a file that is there a second name. A second name of a symbolic
// link is a second link.
func (u *unpacker) hardLink(dir *safefs.Root, base string, header *tar.Header) error {
	target, err := u.entryName(header.Linkname)
	if err != nil {
		return refused(header.Name, "what it is a link to, %q, leads out of the image", shorten(header.Linkname))
	}
	if u.skipped[target] {
		u.skipped[path.Join(u.at, base)] = true
		return u.clear(dir, base, header.Name)
	}
	in, targetBase := path.Split(target)
	from, err := u.root.SubIn(path.Clean("./" + in))
	if err != nil {
		return u.noTarget(header, err)
	}
	defer from.Close()
	info, err := from.Stat(targetBase)
	if err != nil {
		return u.noTarget(header, err)
	}
	if have, err := dir.Stat(base); err == nil && have.SameFile(&info) {
		return nil
	}
	switch {
	case info.Mode&fs.ModeSymlink != 0:
		to, err := from.ReadLink(targetBase)
		if err != nil {
			return broken(header.Name, err)
		}
		return u.symlink(dir, base, to, header)
	case info.Mode.IsDir():
		return refused(header.Name, "it is a hard link to the folder %q", shorten(header.Linkname))
	case !info.Mode.IsRegular():
		return refused(header.Name, "it is a hard link to %q, which is no file", shorten(header.Linkname))
	}
	if err := u.clear(dir, base, header.Name); err != nil {
		return err
	}
	if err := safefs.Link(from, targetBase, dir, base); err != nil {
		return u.noTarget(header, err)
	}
	u.made[info.Ino] = true
	return nil
}

func (u *unpacker) noTarget(header *tar.Header, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return refused(header.Name, "it is a link to %q, which is not there", shorten(header.Linkname))
	}
	if errors.Is(err, unix.EMLINK) {
		return refused(header.Name, "%q has more names than the file system can give it", shorten(header.Linkname))
	}
	return broken(header.Name, err)
}

// attributes sets the extended attributes that mean nothing to the kernel. Those
// that an overlay would take for its own are left out, and so is every one that
// the file system does not have room for.
func (u *unpacker) attributes(dir *safefs.Root, base string, header *tar.Header) {
	count, size := 0, 0
	for key, value := range header.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "user.overlay.") || len(attr) > 255 {
			continue
		}
		if count, size = count+1, size+len(value); count > maxAttrs || size > maxAttr {
			return
		}
		_ = dir.SetXattr(base, attr, []byte(value))
	}
}

// whiteout removes what a layer below has and this one hides. What this layer
// has itself stays, in whichever order it comes.
func (u *unpacker) whiteout(in, base string) error {
	name := path.Join(in, base)
	hidden := base[len(whiteoutPrefix):]
	if base != opaqueName && strings.HasPrefix(base, aufsPrefix) {
		return nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return refused(name, "it hides no entry")
	}
	u.leave()
	dir, err := u.root.SubIn(in)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return broken(name, err)
	}
	defer dir.Close()
	if base == opaqueName {
		return u.hideAll(dir, name, 0)
	}
	info, err := dir.Stat(hidden)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return broken(name, err)
	}
	return u.hide(dir, &info, name, 0)
}

// hide removes an entry as far as this layer has not named it.
func (u *unpacker) hide(dir *safefs.Root, info *safefs.Info, name string, depth int) error {
	if !u.made[info.Ino] {
		return u.clear(dir, info.Name, name)
	}
	if !info.Mode.IsDir() {
		return nil
	}
	sub, err := dir.Sub(info.Name)
	if err != nil {
		return broken(name, err)
	}
	defer sub.Close()
	return u.hideAll(sub, name, depth+1)
}

// hideAll hides all entries of a folder.
func (u *unpacker) hideAll(dir *safefs.Root, name string, depth int) error {
	if depth > u.limits.Depth {
		return refused(name, "more than %d folders deep, the limit of [image]", u.limits.Depth)
	}
	var list []safefs.Info
	opts := &safefs.WalkOptions{MaxDepth: 1, MaxEntries: u.limits.Entries}
	err := dir.Walk(u.ctx, ".", opts, func(e *safefs.Entry) error {
		if e.Path != "." {
			list = append(list, e.Info)
		}
		return nil
	})
	if err != nil {
		return broken(name, err)
	}
	for i := range list {
		if err := u.hide(dir, &list[i], name, depth); err != nil {
			return err
		}
	}
	return nil
}

// finish gives folders what they get at the end, the deepest first, and returns
// what everything takes on disk.
func (u *unpacker) finish() (onDisk int64, err error) {
	type place struct {
		path string
		folder
	}
	var places []place
	opts := &safefs.WalkOptions{MaxEntries: 1 << 31}
	if u.lost != nil {
		u.owners = []byte(ownersMagic)
	}
	err = u.root.Walk(u.ctx, ".", opts, func(e *safefs.Entry) error {
		onDisk += e.Blocks
		u.own(e)
		if f, ok := u.folders[e.Ino]; ok && e.Mode.IsDir() {
			places = append(places, place{e.Path, f})
		}
		return nil
	})
	for i := len(places) - 1; i >= 0 && err == nil; i-- {
		p := &places[i]
		if err = u.root.SetMode(p.path, p.mode); err == nil {
			err = u.root.Chtimes(p.path, p.mtime)
		}
	}
	return onDisk, err
}

// own adds what an entry was to have to the list. What no layer has named is
// user 0's.
func (u *unpacker) own(e *safefs.Entry) {
	if u.lost == nil {
		return
	}
	o, ok := u.lost[e.Ino]
	if !ok {
		o = ownership{mode: e.Mode}
	}
	u.owners = o.append(u.owners, e.Path)
}
