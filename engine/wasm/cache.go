//go:build unix

package wasm

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/caissonrun/caisson"
)

// What is in the folder of compiled modules: the key, and a folder for each
// module, which has wazero's own files and their sum.
const (
	keyName   = "key"
	sumName   = "sum"
	tmpPrefix = "tmp-"
	// maxEntries is how many compiled modules are kept.
	maxEntries = 64
	// staleTime is after how long a folder that was never finished is nobody's.
	staleTime = time.Hour
)

// A cache is the folder of compiled modules. What is in it is machine code that
// keepers run, so it is used only where nobody else could have written it, and
// an entry only if its sum, made with the key, is that of this very module,
// wazero's version, processor and files.
type cache struct {
	dir string
	key []byte
}

// openCache opens the folder, or makes it.
//
// Errors: ErrDenied if somebody else could write to it.
func openCache(dir string) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private(dir, fs.ModeDir|0o700); err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, keyName))
	if err != nil {
		return nil, err
	}
	return &cache{dir: dir, key: key}, nil
}

// private refuses a file or folder that is not exactly of a mode, and this
// user's own.
func private(path string, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode() != mode || !ok || int(st.Uid) != os.Geteuid() {
		return &caisson.Error{
			Item: path, Kind: caisson.ErrDenied,
			Err: fmt.Errorf("compiled modules are run, so it must belong to this user with mode %v; remove it", mode),
		}
	}
	return nil
}

// readKey reads the key, or makes it. Whoever is first decides.
func readKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		fresh := make([]byte, sha256.Size)
		rand.Read(fresh)
		if err := linkNew(path, fresh); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		key, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	if len(key) != sha256.Size {
		return nil, &caisson.Error{Item: path, Kind: caisson.ErrDenied, Err: errors.New("it is no key; remove it")}
	}
	return key, private(path, 0o600)
}

// linkNew makes a file that is complete or not there.
func linkNew(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// version is that of wazero, as this program was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/tetratelabs/wazero" {
			return strings.TrimPrefix(dep.Version, "v")
		}
	}
	return "unknown"
}

// entry is the name of a module's folder.
func entry(module []byte) string {
	digest := sha256.Sum256(module)
	h := sha256.New()
	fmt.Fprintf(h, "%x %s %s %s", digest, version(), runtime.GOARCH, runtime.GOOS)
	return hex.EncodeToString(h.Sum(nil))
}

// A compiling is a module's use of the cache: a folder that is complete, or one
// that is to be.
type compiling struct {
	of       *cache
	name     string
	tmp      string // empty: the entry is there
	compiled wazero.CompilationCache
}

// use returns the cache for a module. What is not what was stored is removed,
// and the module compiled again.
func (c *cache) use(module []byte) (*compiling, error) {
	use := &compiling{of: c, name: entry(module)}
	dir := filepath.Join(c.dir, use.name)
	sum, err := os.ReadFile(filepath.Join(dir, sumName))
	if err == nil {
		var now []byte
		if now, err = c.sum(dir, use.name); err == nil && !hmac.Equal(sum, now) {
			err = errors.New("not what was stored")
		}
	}
	if err != nil {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if use.tmp, err = os.MkdirTemp(c.dir, tmpPrefix); err != nil {
			return nil, err
		}
		dir = use.tmp
	} else {
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // so that it is not the oldest
	}
	use.compiled, err = wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		use.drop()
		return nil, err
	}
	return use, nil
}

// store completes the entry of a module that was compiled. Where another keeper
// was quicker, its entry stays.
func (u *compiling) store() error {
	if u.tmp == "" {
		return nil
	}
	defer u.drop()
	sum, err := u.of.sum(u.tmp, u.name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(u.tmp, sumName), sum, 0o600); err != nil {
		return err
	}
	err = os.Rename(u.tmp, filepath.Join(u.of.dir, u.name))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return u.of.prune()
}

// drop removes what was not completed. It can be called again.
func (u *compiling) drop() {
	if u.tmp != "" {
		_ = os.RemoveAll(u.tmp)
	}
}

// close releases wazero's side.
func (u *compiling) close() { _ = u.compiled.Close(context.Background()) }

// sum is the sum of all files of an entry, with their names, the entry's and
// the key. A file that is not a plain one has none.
func (c *cache) sum(dir, name string) ([]byte, error) {
	h := hmac.New(sha256.New, c.key)
	fmt.Fprintf(h, "%s\n", name)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, path)
		switch {
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case d.IsDir() || rel == sumName:
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is no file", rel)
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(h, "%q %d\n", rel, len(data))
		h.Write(data)
		return err
	})
	return h.Sum(nil), err
}

// prune removes the oldest entries where there are too many, and what was never
// completed.
func (c *cache) prune() error {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   time.Time
	}
	var entries []aged
	for _, e := range list {
		info, err := e.Info()
		switch {
		case err != nil || e.Name() == keyName:
		case strings.HasPrefix(e.Name(), tmpPrefix):
			if time.Since(info.ModTime()) > staleTime {
				_ = os.RemoveAll(filepath.Join(c.dir, e.Name()))
			}
		default:
			entries = append(entries, aged{e.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(entries, func(a, b aged) int { return a.at.Compare(b.at) })
	for len(entries) > maxEntries {
		if err := os.RemoveAll(filepath.Join(c.dir, entries[0].name)); err != nil {
			return err
		}
		entries = entries[1:]
	}
	return nil
}
