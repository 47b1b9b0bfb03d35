//go:build unix

package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	trashDir  = "trash"
	trashLock = "trash.lock"
	signedDir = "signed" // of the pull's marks, by manifest
	stampFile = "collected"
	// staleAfter is when a cut download is given up.
	staleAfter = 24 * time.Hour
)

// GC removes images by opts, and everything that no name and no lease needs.
// What is in use stays.
func (s *Store) GC(ctx context.Context, opts GCOptions) (*GCResult, error) {
	if _, err := os.Lstat(s.path(versionFile)); errors.Is(err, fs.ErrNotExist) {
		return &GCResult{Images: []string{}}, nil
	}
	guard, err := s.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer guard.Release()
	c := &collector{store: s, opts: opts, result: GCResult{Images: []string{}}}
	if err := c.look(); err != nil {
		return nil, err
	}
	if err := c.choose(); err != nil {
		return nil, err
	}
	if opts.DryRun {
		c.countLoose()
		return &c.result, nil
	}
	if err := c.dropNames(); err != nil {
		return nil, err
	}
	if err := c.discardLoose(ctx); err != nil {
		return nil, err
	}
	// What has other names now is removed while others go on.
	guard.Release()
	return &c.result, s.tidy(ctx)
}

// GCDefaults returns Options.GC.
func (s *Store) GCDefaults() GCOptions { return s.opts.GC }

// AutoGC is GC with Options.GC if the last one was at least every ago.
func (s *Store) AutoGC(ctx context.Context, every time.Duration) error {
	if _, err := os.Lstat(s.path(versionFile)); errors.Is(err, fs.ErrNotExist) || s.opts.GC == (GCOptions{}) {
		return nil
	}
	info, err := os.Stat(s.path(stampFile))
	if err == nil && s.now().Sub(info.ModTime()) < every {
		return nil
	}
	if err := os.WriteFile(s.path(stampFile), nil, 0o600); err != nil {
		return sorted(s.opts.Dir, err)
	}
	if err := os.Chtimes(s.path(stampFile), s.now(), s.now()); err != nil {
		return sorted(s.opts.Dir, err)
	}
	_, err = s.GC(ctx, s.opts.GC)
	return err
}

// A collector is one collection, by who holds the store's lock alone.
type collector struct {
	store  *Store
	opts   GCOptions
	result GCResult

	records []*record
	needs   map[string][]string      // what each manifest needs, by its digest in hex
	held    map[string]bool          // in use by leases and claims
	sizes   map[string]caisson.Bytes // of all blobs and trees that are there
	tree    map[string]bool          // which of them are trees
	drop    map[*record]bool
}

// look finds what there is and what needs it.
func (c *collector) look() error {
	var err error
	if c.records, err = c.store.records(); err != nil {
		return err
	}
	if c.held, err = c.store.claimed(); err != nil {
		return err
	}
	leases, err := c.store.leases()
	if err != nil {
		return err
	}
	c.needs, c.drop = map[string][]string{}, map[*record]bool{}
	for _, r := range c.records {
		if hex := r.hash().Hex; c.needs[hex] == nil {
			c.needs[hex] = c.store.digestsOf(r.hash())
		}
	}
	for _, note := range leases {
		c.held[note.Tree] = true
		for _, word := range c.store.digestsOf(mustHash(note.Digest)) {
			c.held[word] = true
		}
	}
	return c.measure()
}

// measure finds the sizes of everything.
func (c *collector) measure() error {
	c.sizes, c.tree = map[string]caisson.Bytes{}, map[string]bool{}
	entries, err := listDir(c.store.path(blobsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && !atomicfile.IsTemp(e.Name()) {
			c.sizes[e.Name()] = caisson.Bytes(info.Size())
		}
	}
	if entries, err = listDir(c.store.path(treesDir)); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), newSuffix) {
			continue
		}
		c.tree[e.Name()] = true
		c.sizes[e.Name()] = 0
		if info, err := treeSize(c.store.path(treesDir, e.Name())); err == nil {
			c.sizes[e.Name()] = info.Bytes
		}
	}
	return nil
}

// listDir lists a folder of the store, which may not be there yet.
func listDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, sorted(dir, err)
}

// choose says which names are dropped: the old ones, and then as many of the
// least recently used as the bounds ask for.
func (c *collector) choose() error {
	order := slices.Clone(c.records)
	slices.SortStableFunc(order, func(a, b *record) int { return a.used.Compare(b.used) })
	free, err := c.free()
	if err != nil {
		return err
	}
	now := c.store.now()
	for _, r := range order {
		if c.inUse(r) {
			continue
		}
		kept, gone := c.weigh()
		old := c.opts.MaxAge > 0 && now.Sub(r.used) > c.opts.MaxAge
		full := c.opts.MaxBytes > 0 && kept > c.opts.MaxBytes || c.opts.MinFree > 0 && free+gone < c.opts.MinFree
		if c.opts.All || old || full {
			c.drop[r] = true
		}
	}
	return nil
}

// inUse reports whether a lease or a pull needs the image.
func (c *collector) inUse(r *record) bool { return c.held[r.hash().Hex] }

// wanted returns what the names that stay, leases and claims need.
func (c *collector) wanted() map[string]bool {
	words := map[string]bool{}
	for word := range c.held {
		words[word] = true
	}
	for _, r := range c.records {
		if c.drop[r] {
			continue
		}
		for _, word := range c.needs[r.hash().Hex] {
			words[word] = true
		}
	}
	return words
}

// weigh returns how much is kept and how much goes.
func (c *collector) weigh() (kept, gone caisson.Bytes) {
	wanted := c.wanted()
	for name, size := range c.sizes {
		if wanted[name] {
			kept += size
		} else {
			gone += size
		}
	}
	return kept, gone
}

// free returns how much room the file system has for the caller.
func (c *collector) free() (caisson.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(c.store.opts.Dir, &st); err != nil {
		return 0, sorted(c.store.opts.Dir, err)
	}
	return caisson.Bytes(uint64(st.Bavail) * uint64(st.Bsize)), nil
}

// countLoose counts what would be removed.
func (c *collector) countLoose() {
	for r := range c.drop {
		c.result.Images = append(c.result.Images, r.Name)
	}
	slices.Sort(c.result.Images)
	wanted := c.wanted()
	for name := range c.sizes {
		if wanted[name] {
			c.result.Kept += c.sizes[name]
		} else {
			c.count(name)
		}
	}
}

func (c *collector) count(name string) {
	c.result.Freed += c.sizes[name]
	if c.tree[name] {
		c.result.Trees++
	} else {
		c.result.Blobs++
	}
}

// dropNames forgets the chosen names. Names go before what they need, so that
// none ever names what is not there.
func (c *collector) dropNames() error {
	for r := range c.drop {
		crash.Point(crash.CollectBefore)
		if err := os.Remove(c.store.recordPath(r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return sorted(r.Name, err)
		}
		crash.Point(crash.CollectAfter)
		c.result.Images = append(c.result.Images, r.Name)
	}
	slices.Sort(c.result.Images)
	if len(c.drop) == 0 {
		return nil
	}
	return sorted(c.store.path(namesDir), atomicfile.SyncDir(c.store.path(namesDir)))
}

// discardLoose moves away what nothing needs: from then on it is not there.
func (c *collector) discardLoose(ctx context.Context) error {
	wanted := c.wanted()
	for name := range c.sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if wanted[name] {
			c.result.Kept += c.sizes[name]
			continue
		}
		paths := []string{
			c.store.path(blobsDir, name), c.store.path(grantsDir, name), c.store.path(signedDir, name),
		}
		if c.tree[name] {
			paths = []string{c.store.path(treesDir, name)}
		}
		for _, path := range paths {
			if err := c.store.discard(path); err != nil {
				return err
			}
		}
		c.count(name)
	}
	return nil
}

// discard moves something to the trash.
func (s *Store) discard(path string) error {
	if err := os.MkdirAll(s.path(trashDir), 0o700); err != nil {
		return sorted(path, err)
	}
	crash.Point(crash.CollectBefore)
	err := os.Rename(path, s.path(trashDir, atomicfile.TempName()))
	crash.Point(crash.CollectAfter)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return sorted(path, err)
}

// tidy removes what collections, and processes that were killed, have left.
func (s *Store) tidy(ctx context.Context) error {
	return errors.Join(s.dropGrants(ctx), s.dropPartials(), s.dropTemps(), s.dropCopies(), s.emptyTrash(ctx))
}

// dropGrants removes grants whose blob is gone. The grant of a blob comes right
// after it, and a download with the same digest may be under way: that is why
// only who is alone may do it.
func (s *Store) dropGrants(ctx context.Context) error {
	guard, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer guard.Release()
	for _, dir := range []string{grantsDir, signedDir} {
		entries, err := listDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := os.Lstat(s.path(blobsDir, e.Name())); errors.Is(err, fs.ErrNotExist) {
				if err := s.discard(s.path(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// dropPartials removes downloads that nobody has gone on with for long, and
// half-made trees that nobody is making.
func (s *Store) dropPartials() error {
	entries, err := listDir(s.path(partialDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && s.now().Sub(info.ModTime()) > staleAfter {
			if err := s.dropUnlocked(s.path(partialDir, strings.TrimSuffix(e.Name(), lockSuffix))); err != nil {
				return err
			}
		}
	}
	if entries, err = listDir(s.path(treesDir)); err != nil {
		return err
	}
	for _, e := range entries {
		base, isNew := strings.CutSuffix(s.path(treesDir, e.Name()), newSuffix)
		base, isLock := strings.CutSuffix(base, lockSuffix)
		if isNew || isLock {
			if err := s.dropLocked(base+lockSuffix, base+newSuffix); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropUnlocked discards a download that nobody works on.
func (s *Store) dropUnlocked(path string) error { return s.dropLocked(path+lockSuffix, path) }

// dropLocked discards path if nobody has its lock.
func (s *Store) dropLocked(lockPath, path string) error {
	lock, err := lockfile.Try(lockPath)
	if errors.Is(err, caisson.ErrExists) {
		return nil
	}
	if err != nil {
		return sorted(lockPath, err)
	}
	defer func() {
		os.Remove(lockPath)
		lock.Release()
	}()
	return s.discard(path)
}

// dropTemps removes files that were being written when their writer was killed.
// Writers take no time: those of an hour ago are dead.
func (s *Store) dropTemps() error {
	for _, dir := range []string{"", blobsDir, namesDir, leasesDir} {
		entries, err := listDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && atomicfile.IsTemp(e.Name()) && s.now().Sub(info.ModTime()) > time.Hour {
				if err := s.discard(s.path(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// dropCopies removes copies that no lease names.
func (s *Store) dropCopies() error {
	entries, err := listDir(s.path(copiesDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := os.Lstat(s.path(leasesDir, e.Name()+jsonEnd)); !errors.Is(err, fs.ErrNotExist) {
			continue // a lease is written before its copy is made
		}
		if err := s.discard(s.path(copiesDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// emptyTrash removes for good what was moved away. If somebody else does, it
// is left to them, and what comes meanwhile to the next.
func (s *Store) emptyTrash(ctx context.Context) error {
	root, err := safefs.Open(s.path(trashDir), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return sorted(s.path(trashDir), err)
	}
	defer root.Close()
	lock, err := lockfile.Try(s.path(trashLock))
	if errors.Is(err, caisson.ErrExists) {
		return nil
	}
	if err != nil {
		return sorted(s.path(trashDir), err)
	}
	defer lock.Release()
	crash.Point(crash.EmptyBefore)
	return sorted(s.path(trashDir), root.RemoveAll(ctx, "."))
}
