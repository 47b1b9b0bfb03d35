//go:build unix

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// Options configures a Store.
type Options struct {
	Dir    string // of the store, absolute; made on first use
	Limits Limits // zero: the defaults
	// SetID keeps the set-id bits of files. Without it they are taken away.
	SetID bool
	// NoOverlay has root file systems always copied.
	NoOverlay bool
	GC        GCOptions // what AutoGC does
	// Sources is how images are had from outside.
	Sources Sources
}

// Limits bounds what an image may be. Zero values are the defaults.
type Limits struct {
	LayerBytes  caisson.Bytes // of a layer as it is sent; default 32g
	Bytes       caisson.Bytes // of all files of an image, unpacked; default 64g
	Entries     int           // of all layers together; default 2,000,000
	Layers      int           // default 127
	Depth       int           // of folders; default 255
	Ratio       int           // how many times larger than what was sent a layer may become; default 200
	ConfigBytes caisson.Bytes // of a manifest, and of a configuration; default 4m
}

// withDefaults returns the limits with all zero values filled in. Errors:
// ErrInvalid for negative ones.
func (l Limits) withDefaults() (Limits, error) {
	if l.LayerBytes < 0 || l.Bytes < 0 || l.Entries < 0 || l.Layers < 0 || l.Depth < 0 || l.Ratio < 0 || l.ConfigBytes < 0 {
		return l, &caisson.Error{Op: caisson.OpConfig, Item: "image", Kind: caisson.ErrInvalid, Err: errors.New("a limit is negative")}
	}
	orDefault(&l.LayerBytes, 32*caisson.GiB)
	orDefault(&l.Bytes, 64*caisson.GiB)
	orDefault(&l.Entries, 2_000_000)
	orDefault(&l.Layers, 127)
	orDefault(&l.Depth, 255)
	orDefault(&l.Ratio, 200)
	orDefault(&l.ConfigBytes, 4*caisson.MiB)
	return l, nil
}

// The version of the store's folder, and the files at its top.
const (
	storeVersion = 1
	versionFile  = "version.json"
	lockFile     = "lock"
)

// A Store keeps images in one folder. It may be used by several goroutines, and
// the folder by several processes.
type Store struct {
	opts   Options
	blobs  *blobs
	puller puller
	now    func() time.Time
	modes  func() ([]Mode, error) // what works here, found once
}

// Open opens the store. It makes nothing before it is needed.
//
// Errors: ErrInvalid for options that make no sense.
func Open(opts *Options) (*Store, error) {
	s := &Store{opts: *opts, blobs: &blobs{dir: opts.Dir}, now: time.Now}
	if !filepath.IsAbs(opts.Dir) {
		return nil, problem(opts.Dir, caisson.ErrInvalid, errors.New("the store's path must be absolute"))
	}
	var err error
	if s.opts.Limits, err = opts.Limits.withDefaults(); err != nil {
		return nil, err
	}
	if s.puller, err = newPuller(&s.opts); err != nil {
		return nil, err
	}
	s.modes = sync.OnceValues(s.probeModes)
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.opts.Dir}, elem...)...)
}

// share takes the store's lock together with others: what is read, claimed or
// leased meanwhile is not collected. It is held for short.
func (s *Store) share(ctx context.Context) (*lockfile.Lock, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	lock, err := lockfile.AcquireShared(ctx, s.path(lockFile))
	return lock, sorted(s.opts.Dir, err)
}

// alone takes the store's lock for whoever changes what is kept.
func (s *Store) alone(ctx context.Context) (*lockfile.Lock, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	lock, err := lockfile.Acquire(ctx, s.path(lockFile))
	return lock, sorted(s.opts.Dir, err)
}

// begin makes the store's folder. Errors: ErrUnsupported if a newer program
// made it.
func (s *Store) begin() error {
	data, err := os.ReadFile(s.path(versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
			return sorted(s.opts.Dir, err)
		}
		return sorted(s.opts.Dir, atomicfile.Write(s.path(versionFile), fmt.Appendf(nil, "{\"version\":%d}\n", storeVersion), 0o600))
	}
	if err != nil {
		return sorted(s.opts.Dir, err)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil || v.Version < 1 {
		return problem(s.opts.Dir, caisson.ErrInvalid, fmt.Errorf("%s names no version: not a folder of images of Caisson", versionFile))
	}
	if v.Version > storeVersion {
		return problem(s.opts.Dir, caisson.ErrUnsupported, errors.New("written by a newer program: use that one, or another folder with --state"))
	}
	return nil
}

// Get returns the image that req names, from the store or from outside as
// req.Pull says. When it returns, everything of it is here and checked.
//
// Errors: ErrInvalid for a reference, platform, image or digest that is wrong;
// ErrNotFound if there is no such image; ErrDenied by a registry, the
// operator's policy or a signature; ErrExhausted for a full disk;
// ErrUnavailable if a registry does not answer.
func (s *Store) Get(ctx context.Context, req *Request) (*Image, error) {
	ref, err := ParseReference(req.Ref)
	if err != nil {
		return nil, err
	}
	switch req.Pull {
	case "", PullMissing, PullAlways, PullNever:
	default:
		return nil, problem(req.Ref, caisson.ErrInvalid, fmt.Errorf("pull %q, want missing, always or never", req.Pull))
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	if req.Pull != PullAlways {
		img, err := s.have(ctx, req)
		if img != nil || err != nil {
			return img, err
		}
	}
	if req.Pull == PullNever && !ref.file() {
		return nil, problem(req.Ref, caisson.ErrNotFound, errors.New("not in the store, and pull is never: get it with `caisson image pull`"))
	}
	return s.pull(ctx, req)
}

// have returns the image if the store has it and it can be used as it is.
func (s *Store) have(ctx context.Context, req *Request) (*Image, error) {
	name, err := fullName(req.Ref, req.Dir)
	if err != nil {
		return nil, err
	}
	r, err := s.record(name)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ok, err := s.puller.check(ctx, req, &known{name: r.Name, digest: r.hash(), platform: r.Platform, access: r.Access})
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, refuseNever(req, name)
	}
	img, err := s.load(r)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, nil // somebody has removed a part of it
	}
	if err != nil || !img.serves(req) {
		return nil, err
	}
	s.touch(name)
	img.Ref = req.Ref
	return img, nil
}

// serves reports whether what is in the store is of the kind that is asked for.
func (img *Image) serves(req *Request) bool {
	switch {
	case req.machine:
		return img.isMachine()
	case req.module:
		return img.Layers == 1
	}
	return isImageConfig(img.manifest.Config.MediaType)
}

// refuseNever is the error of what must be looked for outside and may not.
func refuseNever(req *Request, name string) error {
	if ref, err := ParseReference(req.Ref); err != nil || ref.file() || req.Pull != PullNever {
		return nil
	}
	return problem(name, caisson.ErrDenied, errors.New(
		"it is in the store, but for another platform, credentials or policy than these, and pull is never"))
}

// pull brings the image here and records it under the name that it was asked
// for by.
func (s *Store) pull(ctx context.Context, req *Request) (*Image, error) {
	img, _, err := s.bring(ctx, req, func(p *pulled) ([]string, error) { return []string{p.name}, nil })
	return img, err
}

// bring brings the image here and records it under the names that name gives.
func (s *Store) bring(ctx context.Context, req *Request, name func(*pulled) ([]string, error)) (*Image, []string, error) {
	claim, err := s.newClaim(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer claim.release()
	p, err := s.puller.pull(ctx, req, s.blobs, claim)
	if err != nil {
		return nil, nil, err
	}
	img, err := s.loadDigest(p.digest)
	if err != nil {
		return nil, nil, fmt.Errorf("image %s: %w", p.name, err)
	}
	names, err := name(p)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		if err := s.remember(ctx, n, p); err != nil {
			return nil, nil, err
		}
	}
	img.Name, img.Ref, img.Platform = p.name, req.Ref, p.platform
	return img, names, nil
}

// Load brings an image here from an archive or folder that the operator names,
// and records it under names; without any, under those that the archive gives
// it itself, or else under its path. Other images of these names are
// forgotten. It returns the names in full.
//
// Errors: as Get; ErrInvalid if req.Ref is a registry's, or a name is none.
func (s *Store) Load(ctx context.Context, req *Request, names ...string) (*Image, []string, error) {
	ref, err := ParseReference(req.Ref)
	if err != nil {
		return nil, nil, err
	}
	if ref.Scheme == SchemeRegistry {
		return nil, nil, problem(req.Ref, caisson.ErrInvalid, errors.New("a registry's image: use `caisson image pull`"))
	}
	img, all, err := s.bring(ctx, req, func(p *pulled) ([]string, error) {
		given := names
		if len(given) == 0 {
			given = p.tags
		}
		if len(given) == 0 {
			return []string{p.name}, nil
		}
		return fullTags(given)
	})
	if err != nil {
		return nil, nil, err
	}
	img.Name = all[0]
	return img, all, nil
}

// fullTags returns names in full, which must be those of registries' images.
func fullTags(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		tag, err := ParseReference(name)
		if err != nil {
			return nil, err
		}
		if tag.Scheme != SchemeRegistry || tag.Digest != "" {
			return nil, problem(name, caisson.ErrInvalid, errors.New("not a name with a tag"))
		}
		all = append(all, tag.String())
	}
	return all, nil
}

// Unpack unpacks the image ahead of its first use, unless that is done.
//
// Errors: as RootFS.
func (s *Store) Unpack(ctx context.Context, img *Image, tell func(Progress)) error {
	claim, err := s.newClaim(ctx)
	if err != nil {
		return err
	}
	defer claim.release()
	if err := s.claimImage(claim, img, s.treeKey(img)); err != nil {
		return err
	}
	_, err = s.tree(ctx, img, tell)
	return err
}

// mustHash parses a digest that was made from one.
func mustHash(digest string) v1.Hash {
	hash, _ := v1.NewHash(digest)
	return hash
}

// List returns all images by name.
func (s *Store) List(ctx context.Context) ([]Record, error) {
	list, err := s.records()
	if err != nil {
		return nil, err
	}
	used, err := s.leased()
	if err != nil {
		return nil, err
	}
	var records []Record
	for _, r := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, _, err := s.describe(r, used)
		if err != nil {
			return nil, err
		}
		records = append(records, *rec)
	}
	return records, nil
}

// describe completes a record. Of an image that is not complete any more only
// what the record itself says is known.
func (s *Store) describe(r *record, leased map[string]int) (*Record, *Image, error) {
	rec := &Record{
		Name: r.Name, Digest: r.Digest, Platform: r.Platform, Pulled: r.Pulled, Used: r.used.UTC(),
		InUse: leased[r.Digest] > 0, Private: r.private(),
	}
	img, err := s.load(r)
	if errors.Is(err, caisson.ErrNotFound) {
		return rec, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	rec.ID, rec.Size, rec.Created = img.ID, img.Size, img.Created
	if info, err := treeSize(s.path(treesDir, s.treeKey(img))); err == nil {
		rec.Unpacked, rec.UnpackedSize, rec.Skipped = true, info.Bytes, info.Skipped
	}
	return rec, img, nil
}

// Inspect returns what is known of an image in the store, by its name or a
// digest, or by a beginning of its id that no other has. Errors: ErrNotFound;
// ErrInvalid if several have it.
func (s *Store) Inspect(ctx context.Context, name string) (*Image, *Record, error) {
	r, err := s.find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	used, err := s.leased()
	if err != nil {
		return nil, nil, err
	}
	rec, img, err := s.describe(r, used)
	if err != nil {
		return nil, nil, err
	}
	if img == nil {
		return nil, nil, problem(name, caisson.ErrNotFound, errors.New("not complete: pull it again"))
	}
	return img, rec, nil
}

// minID is how much of an id must at least be given.
const minID = 4

// find returns the record that a person means by name.
func (s *Store) find(ctx context.Context, name string) (*record, error) {
	list, err := s.records()
	if err != nil {
		return nil, err
	}
	full, _ := fullName(name, workingDir())
	var found []*record
	ids := map[string]bool{}
	for _, r := range list {
		if r.Name == name || r.Name == full {
			return r, nil
		}
		if r.Digest == name {
			return r, nil
		}
		if prefix := strings.TrimPrefix(name, "sha256:"); len(prefix) >= minID {
			img, err := s.load(r)
			if err == nil && (strings.HasPrefix(strings.TrimPrefix(img.ID, "sha256:"), prefix) || strings.HasPrefix(strings.TrimPrefix(r.Digest, "sha256:"), prefix)) {
				found = append(found, r)
				ids[r.Digest] = true
			}
		}
	}
	switch {
	case len(ids) > 1:
		return nil, problem(name, caisson.ErrInvalid, errors.New("several images have an id or digest that begins so"))
	case len(found) > 0:
		return found[0], nil
	}
	return nil, problem(name, caisson.ErrNotFound, errors.New("no such image in the store, see `caisson image list`"))
}

func workingDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}

// Remove forgets a name; what no other name and no lease needs is removed.
// Errors: ErrNotFound; ErrExists if a lease has the image and force is not set:
// with it, the image goes with its last lease.
func (s *Store) Remove(ctx context.Context, name string, force bool) error {
	r, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	guard, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer guard.Release()
	used, err := s.leased()
	if err != nil {
		return err
	}
	if used[r.Digest] > 0 && !force {
		return problem(r.Name, caisson.ErrExists, errors.New("a task uses it; end that, or use --force"))
	}
	if err := os.Remove(s.recordPath(r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sorted(r.Name, err)
	}
	c := &collector{store: s}
	if err := c.look(); err != nil {
		return err
	}
	if err := c.discardLoose(ctx); err != nil {
		return err
	}
	guard.Release()
	return s.emptyTrash(ctx)
}
