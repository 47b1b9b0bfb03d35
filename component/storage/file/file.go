//go:build unix

// Package file is a storage in a folder: tables as CSV that people and programs
// can read, files with their contents as they are.
//
//	in/c-main/people.csv      the rows, with a header line
//	in/c-main/people.json     the table's key, times, metadata
//	in/c-main/.people/        versions of the rows, times of their changes
//	files/7_report.pdf        a file; files/7.json has its tags
//	documents/                such as the states of configurations
//	.caisson/                 locks, and what is being written
//
// Any program may read people.csv at any time: it is replaced as a whole, by
// rename. A CSV that somebody puts there, or in the place of one, is the table
// from then on: its first line has the columns, and its rows count as changed
// when the file was. A table is removed with its .csv and its .json.
//
// Several processes may use a folder at the same time, on one host: loads of a
// table wait for each other by flock(2). Versions that are being read are locked
// as well, and are removed by a load after that.
//
// The folder is trusted. It is of one file system that has rename; where that
// has no hard links, people.csv is a copy.
package file

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/internal/objects"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/lockfile"
	"golang.org/x/sys/unix"
)

// smallLimit is the largest object that Get and Put take.
const smallLimit = 64 << 20

// Options are the settings of a storage.
type Options struct {
	CellLimit int64            // bytes of a value; 0: 64 MiB
	Memory    int64            // about what a load with a key takes of it, bytes; 0: 64 MiB
	Now       func() time.Time // nil: time.Now
}

// Open returns the storage in a folder, which is made if it is not there, with
// all that it needs above it.
func Open(dir string, opts *Options) (storage.Storage, error) {
	if opts == nil {
		opts = &Options{}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir}
	s.work.Parent = s.path(".caisson/work")
	s.work.Make = func() error { return s.mkdir(".caisson/work") }
	return objects.New(s, objects.Options{CellLimit: opts.CellLimit, Memory: opts.Memory, Now: opts.Now}), nil
}

// A store is the folder. It is made, and a place for what is being written in
// it, when something is to be.
type store struct {
	dir  string
	work objects.Work
}

var (
	_ objects.Store = (*store)(nil)
	_ objects.Local = (*store)(nil)
	_ objects.Shelf = (*store)(nil)

	_ objects.Copier = (*object)(nil)
)

// Name implements objects.Store.
func (s *store) Name() string { return "file:" + s.dir }

func (s *store) path(key string) string { return filepath.Join(s.dir, filepath.FromSlash(key)) }

// Get implements objects.Store.
func (s *store) Get(_ context.Context, key string) ([]byte, string, error) {
	f, err := os.Open(s.path(key))
	if err != nil {
		return nil, "", s.wrap(key, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, smallLimit+1))
	if err != nil {
		return nil, "", s.wrap(key, err)
	}
	if len(data) > smallLimit {
		return nil, "", &caisson.Error{Item: s.path(key), Kind: caisson.ErrInvalid, Err: fmt.Errorf("larger than %s", caisson.Bytes(smallLimit))}
	}
	return data, version(data), nil
}

// version tells contents from others. Contents that come back are the same
// again, which is as good as if nobody had changed them.
func version(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// Put implements objects.Store.
func (s *store) Put(ctx context.Context, key string, data []byte, old string) (string, error) {
	// Whoever puts compares and replaces alone; it takes as long as two fsyncs.
	release, err := s.Lock(ctx, "put")
	if err != nil {
		return "", err
	}
	defer release()
	_, now, err := s.Get(ctx, key)
	if err != nil && !errors.Is(err, caisson.ErrNotFound) {
		return "", err
	}
	if now != old {
		return "", &caisson.Error{Item: s.path(key), Kind: caisson.ErrExists, Err: errors.New("somebody else changed it")}
	}
	if err := s.mkdir(path.Dir(key)); err != nil {
		return "", err
	}
	crash.Point(crash.PutBefore)
	if err := s.write(key, data); err != nil {
		return "", s.wrap(key, err)
	}
	crash.Point(crash.PutAfter)
	return version(data), nil
}

// write replaces a small file. It is written in this process's own folder, so
// that what a crash leaves is found.
func (s *store) write(key string, data []byte) error {
	o, err := s.create(key)
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := o.Write(data); err != nil {
		return err
	}
	_, err = o.finish(0o644)
	return err
}

// Open implements objects.Store.
func (s *store) Open(_ context.Context, key string) (io.ReadCloser, error) {
	f, err := os.Open(s.path(key))
	if err != nil {
		return nil, s.wrap(key, err)
	}
	return f, nil
}

// Hold implements objects.Local: an object that is locked is not removed.
func (s *store) Hold(key string) (string, func() error, error) {
	f, err := os.Open(s.path(key))
	if err != nil {
		return "", nil, s.wrap(key, err)
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		return "", nil, errors.Join(err, f.Close())
	}
	// It may have been removed before it was locked.
	if !same(f, s.path(key)) {
		f.Close()
		return "", nil, s.wrap(key, fs.ErrNotExist)
	}
	return s.path(key), sync.OnceValue(f.Close), nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func same(f *os.File, path string) bool {
	now, err := os.Lstat(path)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(now, mine)
}

// Create implements objects.Store.
func (s *store) Create(_ context.Context, key string) (objects.Object, error) {
	o, err := s.create(key)
	if err != nil {
		return nil, s.wrap(key, err)
	}
	return o, nil
}

func (s *store) create(key string) (*object, error) {
	work, err := s.work.Dir()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(work, rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &object{s: s, f: f, key: key}, nil
}

// An object is a file that is being written.
type object struct {
	s    *store
	f    *os.File
	key  string
	done bool

	size, flushed int64 // bytes written, and of these on their way to the disk
}

// Write implements objects.Object.
func (o *object) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	if err != nil {
		return n, o.s.wrap(o.key, err)
	}
	if o.size += int64(n); o.size-o.flushed >= flushStep {
		startFlush(o.f, o.flushed, o.size-o.flushed)
		o.flushed = o.size
	}
	return n, nil
}

// CopyFrom implements objects.Copier: as a clone that shares its blocks, or
// inside of the kernel.
func (o *object) CopyFrom(ctx context.Context, key string) error {
	src, err := os.Open(o.s.path(key))
	if err != nil {
		return o.s.wrap(key, err)
	}
	defer src.Close()
	done, err := filecopy.Copy(ctx, o.f, src, nil)
	if err != nil {
		return o.s.wrap(o.key, err)
	}
	o.size, o.flushed = done.Size, done.Size
	if !done.Cloned {
		startFlush(o.f, 0, done.Size)
	}
	if _, err = o.f.Seek(done.Size, io.SeekStart); err != nil {
		return o.s.wrap(o.key, err)
	}
	return nil
}

// Commit implements objects.Object. Nobody may write to the file any more.
func (o *object) Commit() (objects.Print, error) {
	print, err := o.finish(0o444)
	if err != nil {
		return print, o.s.wrap(o.key, err)
	}
	return print, nil
}

// finish makes the file durable first, then its name.
func (o *object) finish(perm os.FileMode) (objects.Print, error) {
	if err := o.f.Chmod(perm); err != nil {
		return objects.Print{}, err
	}
	// The kernel's own time may be the same for two versions.
	now := time.Now()
	if err := os.Chtimes(o.f.Name(), now, now); err != nil {
		return objects.Print{}, err
	}
	if err := o.f.Sync(); err != nil {
		return objects.Print{}, err
	}
	info, err := o.f.Stat()
	if err != nil {
		return objects.Print{}, err
	}
	if err := o.s.mkdir(path.Dir(o.key)); err != nil {
		return objects.Print{}, err
	}
	crash.Point(crash.ObjectBefore)
	if err := os.Rename(o.f.Name(), o.s.path(o.key)); err != nil {
		return objects.Print{}, err
	}
	o.done = true
	crash.Point(crash.ObjectAfter)
	if err := o.f.Close(); err != nil {
		return objects.Print{}, err
	}
	return printOf(info), atomicfile.SyncDir(filepath.Dir(o.s.path(o.key)))
}

func printOf(info fs.FileInfo) objects.Print {
	return objects.Print{Size: info.Size(), Tag: info.ModTime().UTC().Format(time.RFC3339Nano)}
}

// Close implements objects.Object.
func (o *object) Close() error {
	if o.done {
		return nil
	}
	o.done = true
	return errors.Join(o.f.Close(), os.Remove(o.f.Name()))
}

// List implements objects.Store.
func (s *store) List(_ context.Context, folder string) ([]string, error) {
	entries, err := os.ReadDir(s.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.wrap(folder, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
		if e.IsDir() {
			names[i] += "/"
		}
	}
	return names, nil
}

// Remove implements objects.Store.
func (s *store) Remove(_ context.Context, key string) error {
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.wrap(key, err)
	}
	return nil
}

// Sweep implements objects.Store. The caller has the folder's lock, so that
// nobody else is about to name what is in it.
func (s *store) Sweep(ctx context.Context, folder string, keep func(name string) bool) error {
	names, err := s.List(ctx, folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep(name) || strings.HasSuffix(name, "/") {
			continue
		}
		crash.Point(crash.SweepMiddle)
		err = errors.Join(err, s.sweep(s.path(folder+"/"+name)))
	}
	return err
}

func (s *store) sweep(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // it is being read
	}
	return os.Remove(name)
}

// Lock implements objects.Store.
func (s *store) Lock(ctx context.Context, name string) (func(), error) {
	if err := s.mkdir(".caisson/locks"); err != nil {
		return nil, err
	}
	l, err := lockfile.Acquire(ctx, s.path(".caisson/locks/"+name))
	if err != nil && ctx.Err() != nil {
		// Whoever holds it is no reason to say that something is there already.
		return nil, fmt.Errorf("%w: %v", ctx.Err(), err)
	}
	if err != nil {
		return nil, s.wrap(".caisson/locks/"+name, err)
	}
	return func() { _ = l.Release() }, nil
}

// Scratch implements objects.Store.
func (s *store) Scratch() (string, error) {
	work, err := s.work.Dir()
	if err != nil {
		return "", s.wrap(".caisson/work", err)
	}
	return os.MkdirTemp(work, "")
}

// Close implements objects.Store.
func (s *store) Close() error { return s.work.Close() }

// mkdir makes a folder of the storage, and each new name durable.
func (s *store) mkdir(key string) error {
	dir := s.path(key)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if key != "." {
		if err := s.mkdir(path.Dir(key)); err != nil {
			return err
		}
	} else if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return s.wrap(key, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return s.wrap(key, err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(dir)); err != nil {
		return s.wrap(key, err)
	}
	return nil
}
