package wasm

import (
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero/experimental/sys"
	wazerosys "github.com/tetratelabs/wazero/sys"
)

// A folder wraps wazero's own of a place, and knows read-only places.
type folder struct {
	sys.File
	at   *mounted
	name string // in at
}

// Utimens implements sys.File.
func (f *folder) Utimens(atim, mtim int64) sys.Errno {
	if f.at.readonly {
		return sys.EROFS
	}
	return setTimes(f.at.root, f.name, atim, mtim)
}

// A file wraps an open file of a place. What moves in it is wazero's, by single.
type file struct {
	sys.File
	f      *os.File
	append bool
	at     *mounted
	name   string // in at
}

var _ sys.File = (*file)(nil)

// single is a file system of one open file.
type single struct{ f *os.File }

// Open implements fs.FS.
func (s single) Open(string) (fs.File, error) { return s.f, nil }

// hostFlags are those of an open on the host. It never blocks: what is neither
// a file nor a folder is refused once it is open.
func hostFlags(flag sys.Oflag) int {
	host := os.O_RDONLY
	switch {
	case flag&sys.O_RDWR != 0:
		host = os.O_RDWR
	case flag&sys.O_WRONLY != 0:
		host = os.O_WRONLY
	}
	for _, f := range []struct {
		wasi sys.Oflag
		host int
	}{
		{sys.O_APPEND, os.O_APPEND},
		{sys.O_CREAT, os.O_CREATE},
		{sys.O_EXCL, os.O_EXCL},
		{sys.O_TRUNC, os.O_TRUNC},
		{sys.O_SYNC, os.O_SYNC},
		{sys.O_DSYNC, os.O_SYNC},
		{sys.O_NOFOLLOW, syscall.O_NOFOLLOW},
		{sys.O_DIRECTORY, syscall.O_DIRECTORY},
	} {
		if flag&f.wasi != 0 {
			host |= f.host
		}
	}
	return host | syscall.O_NONBLOCK | syscall.O_NOCTTY
}

// Dev implements sys.File.
func (f *file) Dev() (uint64, sys.Errno) {
	st, errno := f.Stat()
	return st.Dev, errno
}

// Ino implements sys.File.
func (f *file) Ino() (wazerosys.Inode, sys.Errno) {
	st, errno := f.Stat()
	return st.Ino, errno
}

// IsDir implements sys.File.
func (f *file) IsDir() (bool, sys.Errno) { return false, 0 }

// IsAppend implements sys.File.
func (f *file) IsAppend() bool { return f.append }

// SetAppend implements sys.File.
func (f *file) SetAppend(on bool) sys.Errno {
	if err := setAppend(f.f, on); err != nil {
		return errnoOf(err)
	}
	f.append = on
	return 0
}

// Stat implements sys.File.
func (f *file) Stat() (wazerosys.Stat_t, sys.Errno) {
	info, err := f.f.Stat()
	if err != nil {
		return wazerosys.Stat_t{}, errnoOf(err)
	}
	return wazerosys.NewStat_t(info), 0
}

// Read implements sys.File.
func (f *file) Read(buf []byte) (int, sys.Errno) {
	n, err := f.f.Read(buf)
	return n, pastEnd(err)
}

// Pread implements sys.File.
func (f *file) Pread(buf []byte, offset int64) (int, sys.Errno) {
	n, err := f.f.ReadAt(buf, offset)
	return n, pastEnd(err)
}

// pastEnd is errnoOf where the end of a file is no error.
func pastEnd(err error) sys.Errno {
	if err == io.EOF {
		return 0
	}
	return errnoOf(err)
}

// Readdir implements sys.File.
func (f *file) Readdir(int) ([]sys.Dirent, sys.Errno) { return nil, sys.ENOTDIR }

// Write implements sys.File.
func (f *file) Write(buf []byte) (int, sys.Errno) {
	n, err := f.f.Write(buf)
	return n, errnoOf(err)
}

// Pwrite implements sys.File.
func (f *file) Pwrite(buf []byte, offset int64) (int, sys.Errno) {
	n, err := f.f.WriteAt(buf, offset)
	return n, errnoOf(err)
}

// Truncate implements sys.File.
func (f *file) Truncate(size int64) sys.Errno { return errnoOf(f.f.Truncate(size)) }

// Sync implements sys.File.
func (f *file) Sync() sys.Errno { return errnoOf(f.f.Sync()) }

// Datasync implements sys.File.
func (f *file) Datasync() sys.Errno { return f.Sync() }

// Utimens implements sys.File.
func (f *file) Utimens(atim, mtim int64) sys.Errno {
	if f.at.readonly {
		return sys.EROFS
	}
	return setTimes(f.at.root, f.name, atim, mtim)
}

// Close implements sys.File.
func (f *file) Close() sys.Errno { return errnoOf(f.f.Close()) }

// setTimes sets the times of a file, in nanoseconds since 1970. One that is
// UTIME_OMIT stays as it is.
func setTimes(root *os.Root, name string, atim, mtim int64) sys.Errno {
	of := func(nanos int64) time.Time {
		if nanos == sys.UTIME_OMIT {
			return time.Time{}
		}
		return time.Unix(0, nanos)
	}
	return errnoOf(root.Chtimes(name, of(atim), of(mtim)))
}

// A carrier is a folder that exists only because something is mounted below
// it. What is in it is not listed.
type carrier struct{ sys.UnimplementedFile }

var _ sys.File = (*carrier)(nil)

func carrierStat() wazerosys.Stat_t { return wazerosys.Stat_t{Mode: fs.ModeDir | 0o555, Nlink: 1} }

// IsDir implements sys.File.
func (*carrier) IsDir() (bool, sys.Errno) { return true, 0 }

// Stat implements sys.File.
func (*carrier) Stat() (wazerosys.Stat_t, sys.Errno) { return carrierStat(), 0 }

// Readdir implements sys.File.
func (*carrier) Readdir(int) ([]sys.Dirent, sys.Errno) { return nil, 0 }

// Close implements sys.File.
func (*carrier) Close() sys.Errno { return 0 }
