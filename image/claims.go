//go:build unix

package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
)

const claimsDir = "claims"

// A claim keeps blobs and trees from being collected while they belong to no
// image or lease yet. It is a locked file that lists them, so that it ends with
// its process, if not before.
type claim struct {
	ctx   context.Context // of the call that it belongs to
	store *Store
	lock  *lockfile.Lock
	path  string
}

func (s *Store) newClaim(ctx context.Context) (*claim, error) {
	dir := s.path(claimsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, sorted(dir, err)
	}
	path := filepath.Join(dir, atomicfile.TempName())
	lock, err := lockfile.Try(path)
	if err != nil {
		return nil, sorted(path, err)
	}
	return &claim{ctx: ctx, store: s, lock: lock, path: path}, nil
}

// add claims digests. It must come before the look whether a blob is there: a
// collection is then either over, or knows of it.
func (c *claim) add(digests ...v1.Hash) error {
	words := make([]string, len(digests))
	for i, d := range digests {
		words[i] = d.Hex
	}
	return c.addWords(words)
}

// addTree is add for an unpacked tree.
func (c *claim) addTree(key string) error { return c.addWords([]string{key}) }

func (c *claim) addWords(words []string) error {
	guard, err := c.store.share(c.ctx)
	if err != nil {
		return err
	}
	defer guard.Release()
	crash.Point(crash.ClaimBefore)
	_, err = fmt.Fprintf(c.lock.File(), "\n%s\n", strings.Join(words, "\n"))
	crash.Point(crash.ClaimAfter)
	return sorted(c.path, err)
}

// release ends the claim.
func (c *claim) release() {
	os.Remove(c.path)
	c.lock.Release()
}

// claimed returns all that living processes claim, and removes the claims of
// dead ones. The caller holds the store's lock alone.
func (s *Store) claimed() (map[string]bool, error) {
	words := map[string]bool{}
	entries, err := os.ReadDir(s.path(claimsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return words, nil
	}
	if err != nil {
		return nil, sorted(s.path(claimsDir), err)
	}
	for _, e := range entries {
		path := filepath.Join(s.path(claimsDir), e.Name())
		gone, err := dropDead(path)
		if err == nil && !gone {
			err = readWords(path, words)
		}
		if err != nil {
			return nil, sorted(path, err)
		}
	}
	return words, nil
}

// dropDead removes a claim that nobody holds. Only who has the lock may say so:
// a claim that was just made is not locked yet.
func dropDead(path string) (bool, error) {
	held, err := lockfile.Held(path)
	if held || err != nil {
		return false, err
	}
	lock, err := lockfile.Try(path)
	if errors.Is(err, caisson.ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Release()
	return true, os.Remove(path)
}

func readWords(path string, words map[string]bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words[lines.Text()] = true
	}
	return lines.Err()
}
