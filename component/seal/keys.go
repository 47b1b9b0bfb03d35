package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"filippo.io/age"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// maxKeys is the most bytes that a key file may have.
const maxKeys = 64 << 10

// Keys are the identities of a key file. They are read when they are first
// needed.
type Keys struct {
	file string

	mu  sync.Mutex
	ids []*age.X25519Identity
}

// Open returns the keys of a file, which need not be there until a value is
// sealed or unsealed.
func Open(file string) *Keys { return &Keys{file: file} }

// File returns the key file's path.
func (k *Keys) File() string { return k.file }

// load reads the key file.
func (k *Keys) load() ([]*age.X25519Identity, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ids != nil {
		return k.ids, nil
	}
	ids, err := read(k.file)
	if err != nil {
		return nil, k.failure(err)
	}
	k.ids = ids
	return ids, nil
}

// make reads the key file, or makes one with a new key if there is none.
func (k *Keys) make() ([]*age.X25519Identity, error) {
	ids, err := k.load()
	if !errors.Is(err, caisson.ErrNotFound) {
		return ids, err
	}
	if err := create(k.file); err != nil {
		return nil, k.failure(err)
	}
	return k.load()
}

// failure says what is wrong with the key file.
func (k *Keys) failure(err error) error {
	kind := caisson.ErrInvalid
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind, err = caisson.ErrNotFound, errors.New("there is no key file; set [component] key_file, or make one by \"caisson component encrypt\"")
	case errors.Is(err, fs.ErrPermission):
		kind = caisson.ErrDenied
	case errors.Is(err, errOpen):
		kind = caisson.ErrDenied
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &caisson.Error{Op: caisson.OpState, Item: k.file, Kind: kind, Err: err}
}

var errOpen = errors.New("others than its owner may use the key file; run chmod 600")

func read(file string) ([]*age.X25519Identity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, errOpen
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err != nil {
		return nil, err
	}
	var ids []*age.X25519Identity
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		id, err := age.ParseX25519Identity(string(line))
		if err != nil || len(data) > maxKeys {
			return nil, fmt.Errorf("line %d is not an age identity", i+1) // and never says what it is
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("has no age identity in it")
	}
	return ids, nil
}

// create makes a key file with a new key. If somebody else makes it at the same
// time, theirs stays.
func create(file string) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := filepath.Join(dir, atomicfile.TempName())
	text := fmt.Sprintf("# Seals values of components' configurations. Without it they are lost.\n# public key: %s\n%s\n", id.Recipient(), id)
	if err := atomicfile.Write(temp, []byte(text), 0o600); err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return atomicfile.SyncDir(dir)
}
