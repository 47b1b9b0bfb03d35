//go:build unix

package guest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// maxEntries is how many entries a folder may have that is listed.
	maxEntries = 1 << 18
	// maxLine bounds what is said about one.
	maxLine = 4096
	// maxNameLen is the longest name of a file that Linux has.
	maxNameLen = 255
	// maxPath bounds a link's target.
	maxPath = 4096
)

// FS returns the guest's files. Links are followed as programs there would. Each
// operation takes Options.Patience at most.
func (c *Client) FS(ctx context.Context) (*FS, error) {
	if err := c.Ping(ctx); err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	return &FS{client: c, ctx: life, end: end}, nil
}

// An FS is the guest's files, until Close or the session's end.
type FS struct {
	client *Client
	ctx    context.Context
	end    context.CancelFunc
}

var _ interface {
	fs.ReadDirFS
	fs.StatFS
	fs.ReadLinkFS
	io.Closer
} = (*FS)(nil)

// Close ends the FS, and what is under way in it. It may be called again.
func (f *FS) Close() error {
	f.end()
	return nil
}

// begin makes a call about a file.
func (f *FS) begin(op, name, call string) (*wire.Call, error) {
	if err := checkName(name); err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.client.patience)
	defer cancel()
	c, err := f.client.mux.Call(ctx, call, &wire.Path{Path: wire.Name(name)})
	return c, f.failed(op, name, err)
}

// failed describes what went wrong.
func (f *FS) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if f.ctx.Err() != nil {
		err = fs.ErrClosed
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = &caisson.Error{Op: caisson.OpFiles, Item: "guest", Kind: caisson.ErrUnavailable, Err: errors.New("it does not answer")}
	}
	return &fs.PathError{Op: op, Path: name, Err: f.client.sorted(caisson.OpFiles, err)}
}

// checkName refuses what is no name of a file below a root.
func checkName(name string) error {
	if name == "." {
		return nil
	}
	bad := strings.ContainsRune(name, 0)
	for element := range strings.SplitSeq(name, "/") {
		bad = bad || element == "" || element == "." || element == ".."
	}
	if bad {
		return fs.ErrInvalid
	}
	return nil
}

// ask makes a call about a file that has one answer.
func (f *FS) ask(op, name, call string, result any) error {
	if err := checkName(name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.client.patience)
	defer cancel()
	err := f.client.ask(ctx, caisson.OpFiles, call, &wire.Path{Path: wire.Name(name)}, result)
	return f.failed(op, name, err)
}

// Stat describes what name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.stat("stat", name, wire.OpStat) }

// Lstat describes name itself; links in the path to it are followed.
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return f.stat("lstat", name, wire.OpLstat) }

func (f *FS) stat(op, name, call string) (fs.FileInfo, error) {
	var said wire.FileInfo
	if err := f.ask(op, name, call, &said); err != nil {
		return nil, err
	}
	// A file is called what it was asked by.
	said.Name = wire.Name(path.Base(name))
	info, err := infoOf(&said)
	return info, f.failed(op, name, err)
}

// ReadLink returns a symbolic link's target; links in the path to it are followed.
// It may be anything: nobody but the guest follows it.
func (f *FS) ReadLink(name string) (string, error) {
	var target wire.Name
	if err := f.ask("readlink", name, wire.OpReadLink, &target); err != nil {
		return "", err
	}
	if len(target) == 0 || len(target) >= maxPath || slices.Contains(target, 0) {
		return "", f.failed("readlink", name, f.client.broken(caisson.OpFiles, errors.New("a link without a target")))
	}
	return string(target), nil
}

// ReadDir lists a folder, sorted by name. Errors: ErrExhausted if it has too much in
// it.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	call, err := f.begin("readdir", name, wire.OpList)
	if err != nil {
		return nil, err
	}
	defer call.Cancel()
	defer context.AfterFunc(f.ctx, call.Cancel)()
	// The listing as a whole has to be there by then.
	deadline := time.Now().Add(f.client.patience)
	call.In[1].SetDeadline(deadline)
	list, err := entries(call.In[1])
	ctx, cancel := context.WithDeadline(f.ctx, deadline)
	defer cancel()
	if err = finished(ctx, call, err); err == nil {
		err = sortEntries(list)
	}
	if err != nil {
		return nil, f.failed("readdir", name, err)
	}
	return list, nil
}

// finished returns what has become of a call after its stream. What the agent says
// about it comes before what that did to the stream.
func finished(ctx context.Context, call *wire.Call, err error) error {
	if err != nil && !errors.Is(err, wire.ErrEnded) && !errors.Is(err, io.ErrUnexpectedEOF) {
		call.Cancel()
		return err
	}
	_, last, nextErr := call.Next(ctx)
	switch {
	case nextErr != nil:
		return nextErr
	case !last:
		return errors.New("an answer too many")
	}
	return err
}

// entries reads what a folder holds.
func entries(r io.Reader) ([]fs.DirEntry, error) {
	var list []fs.DirEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var said wire.FileInfo
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			return nil, fmt.Errorf("an entry that can't be read: %w", err)
		}
		info, err := infoOf(&said)
		if err != nil {
			return nil, err
		}
		if len(list) == maxEntries {
			return nil, &caisson.Error{
				Op: caisson.OpFiles, Kind: caisson.ErrExhausted, Err: fmt.Errorf("a folder with more than %d entries", maxEntries),
			}
		}
		list = append(list, fs.FileInfoToDirEntry(info))
	}
	return list, lines.Err()
}

// sortEntries sorts by name, of which there is one each.
func sortEntries(list []fs.DirEntry) error {
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for i := 1; i < len(list); i++ {
		if list[i].Name() == list[i-1].Name() {
			return fmt.Errorf("a folder that has %q twice", list[i].Name())
		}
	}
	return nil
}

// A fileInfo is what the agent says about a file, checked.
type fileInfo struct {
	name string
	said wire.FileInfo
}

// infoOf checks what the agent says about a file.
func infoOf(said *wire.FileInfo) (*fileInfo, error) {
	name := string(said.Name)
	if name != "." && (checkName(name) != nil || strings.Contains(name, "/") || len(name) > maxNameLen) {
		return nil, fmt.Errorf("a file of the name %q", name[:min(len(name), maxNameLen)])
	}
	const known = fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if fs.FileMode(said.Mode)&^known != 0 || said.Size < 0 {
		return nil, fmt.Errorf("a file of mode %#o and %d bytes", said.Mode, said.Size)
	}
	return &fileInfo{name: name, said: *said}, nil
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.said.Size }
func (i *fileInfo) Mode() fs.FileMode  { return fs.FileMode(i.said.Mode) }
func (i *fileInfo) ModTime() time.Time { return time.Unix(0, i.said.ModTime) }
func (i *fileInfo) IsDir() bool        { return i.Mode().IsDir() }

// Sys returns the owner, an Owner.
func (i *fileInfo) Sys() any { return Owner{UID: i.said.UID, GID: i.said.GID} }

// Open opens a regular file or a folder for reading. A file ends where it did when it
// was opened.
func (f *FS) Open(name string) (fs.File, error) {
	call, err := f.begin("open", name, wire.OpOpen)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.client.patience)
	defer cancel()
	info, err := opened(ctx, call, path.Base(name))
	if err != nil {
		call.Cancel()
		return nil, f.failed("open", name, err)
	}
	if info.IsDir() {
		call.Cancel()
		return &folder{fs: f, name: name, info: info}, nil
	}
	stop := context.AfterFunc(f.ctx, call.Cancel)
	return &file{fs: f, name: name, info: info, call: call, left: info.Size(), stop: stop}, nil
}

// opened reads what the agent says about a file that it has opened.
func opened(ctx context.Context, call *wire.Call, base string) (*fileInfo, error) {
	body, _, err := call.Next(ctx)
	if err != nil {
		return nil, err
	}
	var said wire.FileInfo
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, err
	}
	said.Name = wire.Name(base)
	info, err := infoOf(&said)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = fmt.Errorf("it has opened %q, of mode %v", base, info.Mode())
	}
	return info, err
}

// A file is a regular file that is read from its beginning to its end.
type file struct {
	fs   *FS
	name string
	info *fileInfo
	call *wire.Call
	left int64
	stop func() bool
}

// Stat implements fs.File.
func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// Read implements fs.File.
func (f *file) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	in := f.call.In[1]
	in.SetDeadline(time.Now().Add(f.fs.client.patience))
	n, err := in.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	// The end of a session may be one of a file, too.
	if err == nil || err == io.EOF {
		return n, err
	}
	ctx, cancel := context.WithTimeout(f.fs.ctx, f.fs.client.patience)
	defer cancel()
	return n, f.fs.failed("read", f.name, finished(ctx, f.call, err))
}

// Close implements fs.File.
func (f *file) Close() error {
	f.stop()
	f.call.Cancel()
	return nil
}

// A folder is an open folder.
type folder struct {
	fs   *FS
	name string
	info *fileInfo
	list []fs.DirEntry
	read bool
}

// Stat implements fs.File.
func (d *folder) Stat() (fs.FileInfo, error) { return d.info, nil }

// Close implements fs.File.
func (d *folder) Close() error { return nil }

// Read implements fs.File.
func (d *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("it is a folder")}
}

// ReadDir implements fs.ReadDirFile.
func (d *folder) ReadDir(n int) (list []fs.DirEntry, err error) {
	if !d.read {
		if d.list, err = d.fs.ReadDir(d.name); err != nil {
			return nil, err
		}
		d.read = true
	}
	if n <= 0 || n > len(d.list) {
		if n > 0 && len(d.list) == 0 {
			return nil, io.EOF
		}
		n = len(d.list)
	}
	list, d.list = d.list[:n], d.list[n:]
	return list, nil
}

// Fetch unpacks the guest's file or folder name below the folder dir of root, as
// safefs.Root.Untar does, which checks what the guest sends. Opts should bound it.
func (c *Client) Fetch(ctx context.Context, name string, root *safefs.Root, dir string, opts *safefs.UntarOptions) error {
	return c.get(ctx, name, func(ctx context.Context, r io.Reader) error { return root.Untar(ctx, dir, r, opts) })
}

// Tar writes the guest's file or folder name as a tar stream, as engine.Filer.Tar
// says: regular files, folders and links, by names that are relative and clean. It is
// as long as the guest makes it. After an error it is cut off.
func (c *Client) Tar(ctx context.Context, name string, w io.Writer) error {
	return c.get(ctx, name, func(_ context.Context, r io.Reader) error { return filter(w, r) })
}

// get has a tar stream of the guest's read.
func (c *Client) get(ctx context.Context, name string, read func(context.Context, io.Reader) error) error {
	call, err := c.mux.Call(ctx, wire.OpGet, &wire.Path{Path: wire.Name(name)})
	if err != nil {
		return c.sorted(caisson.OpFiles, err)
	}
	defer call.Cancel()
	defer context.AfterFunc(ctx, call.Cancel)()
	source := &noted{Reader: call.In[1]}
	err = read(ctx, source)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case source.err != nil && source.err != io.EOF:
		// What the agent says about it is nearer to the cause.
		err = finished(ctx, call, source.err)
	case err == nil:
		// Behind an archive's end is nothing that anybody reads.
		_ = call.In[1].Close()
		err = finished(ctx, call, nil)
	}
	if errors.Is(err, fs.ErrInvalid) || errors.Is(err, safefs.ErrTooMany) {
		return &caisson.Error{Op: caisson.OpFiles, Item: fmt.Sprintf("%q", name), Kind: caisson.ErrInvalid, Err: err}
	}
	return c.sorted(caisson.OpFiles, err)
}

// A noted is a Reader that remembers its error.
type noted struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (n *noted) Read(p []byte) (int, error) {
	count, err := n.Reader.Read(p)
	if err != nil {
		n.err = err
	}
	return count, err
}

// Put unpacks a tar stream below the guest's folder name, with the rights of owner,
// whose files they become; nil is root. Entries that lead out of the folder, devices
// and links to outside are ErrInvalid, and what came before them stays.
func (c *Client) Put(ctx context.Context, name string, r io.Reader, owner *Owner) error {
	call, err := c.mux.Call(ctx, wire.OpPut, &wire.Put{Path: wire.Name(name), Owner: owner})
	if err != nil {
		return c.sorted(caisson.OpFiles, err)
	}
	defer call.Cancel()
	defer context.AfterFunc(ctx, call.Cancel)()
	source := &noted{Reader: r}
	_, err = io.Copy(call.Out[0], source)
	if source.err != nil && !errors.Is(source.err, io.EOF) {
		return source.err
	}
	// The agent may have ended the call before it had all: because of an error, or
	// because the archive ends before the stream does.
	_ = call.Out[0].Close()
	_, _, said := call.Next(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if said == nil && err != nil && !errors.Is(err, wire.ErrStopped) && !errors.Is(err, wire.ErrEnded) {
		said = err
	}
	return c.sorted(caisson.OpFiles, said)
}
