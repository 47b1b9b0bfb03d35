package wasm

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// A secretFile is a file in secretsDir. It is in memory alone.
type secretFile struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
	Once  bool   `json:"once,omitempty"` // whoever opens it first has it alone
}

// secretFS is the folder of secrets. It implements fs.FS and fs.StatFS.
type secretFS struct {
	mu   sync.Mutex
	list []secretFile
}

// Open implements fs.FS. A file that is there once is gone with it.
func (f *secretFS) Open(name string) (fs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "." {
		return &secretDir{list: slices.Clone(f.list)}, nil
	}
	i := f.find(name)
	if i < 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	s := f.list[i]
	if s.Once {
		f.list = slices.Delete(f.list, i, i+1)
	}
	return &secretReader{bytes.NewReader(s.Value), secretInfo{s}}, nil
}

// Stat implements fs.StatFS. To look at a file is not to read it.
func (f *secretFS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "." {
		return secretRoot{}, nil
	}
	if i := f.find(name); i >= 0 {
		return secretInfo{f.list[i]}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// find returns which file has a name, or -1. The caller holds mu.
func (f *secretFS) find(name string) int {
	return slices.IndexFunc(f.list, func(s secretFile) bool { return s.Name == name })
}

// A secretReader is an open file.
type secretReader struct {
	*bytes.Reader
	info secretInfo
}

// Stat implements fs.File.
func (r *secretReader) Stat() (fs.FileInfo, error) { return r.info, nil }

// Close implements fs.File.
func (r *secretReader) Close() error { return nil }

// A secretDir is the open folder.
type secretDir struct {
	list []secretFile
	at   int
}

// Stat implements fs.File.
func (d *secretDir) Stat() (fs.FileInfo, error) { return secretRoot{}, nil }

// Read implements fs.File.
func (d *secretDir) Read([]byte) (int, error) { return 0, fs.ErrInvalid }

// Close implements fs.File.
func (d *secretDir) Close() error { return nil }

// ReadDir implements fs.ReadDirFile.
func (d *secretDir) ReadDir(n int) ([]fs.DirEntry, error) {
	var list []fs.DirEntry
	for ; d.at < len(d.list) && (n <= 0 || len(list) < n); d.at++ {
		list = append(list, fs.FileInfoToDirEntry(secretInfo{d.list[d.at]}))
	}
	if n > 0 && len(list) == 0 {
		return nil, io.EOF
	}
	return list, nil
}

// secretInfo describes a file.
type secretInfo struct{ s secretFile }

func (i secretInfo) Name() string     { return i.s.Name }
func (i secretInfo) Size() int64      { return int64(len(i.s.Value)) }
func (secretInfo) Mode() fs.FileMode  { return 0o400 }
func (secretInfo) ModTime() time.Time { return time.Time{} }
func (secretInfo) IsDir() bool        { return false }
func (secretInfo) Sys() any           { return nil }

// secretRoot describes the folder.
type secretRoot struct{}

func (secretRoot) Name() string       { return "secrets" }
func (secretRoot) Size() int64        { return 0 }
func (secretRoot) Mode() fs.FileMode  { return fs.ModeDir | 0o500 }
func (secretRoot) ModTime() time.Time { return time.Time{} }
func (secretRoot) IsDir() bool        { return true }
func (secretRoot) Sys() any           { return nil }
