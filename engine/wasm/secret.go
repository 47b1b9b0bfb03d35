package wasm

import (
	"bytes"
	"io"
	"io/fs"
	"time"
)

// A secretFile is a file in secretsDir. It is in memory alone.
type secretFile struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// secretFS is the folder of secrets. It implements fs.FS.
type secretFS []secretFile

// Open implements fs.FS.
func (list secretFS) Open(name string) (fs.File, error) {
	if name == "." {
		return &secretDir{list: list}, nil
	}
	for _, s := range list {
		if s.Name == name {
			return &secretReader{bytes.NewReader(s.Value), secretInfo{s}}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
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
	list secretFS
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
