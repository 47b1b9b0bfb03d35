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

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
)

const (
	leasesDir = "leases"
	copiesDir = "copies"
	maxOwner  = 255
)

// leaseNote is what a file in leases holds.
type leaseNote struct {
	Version int    `json:"version"`
	Owner   string `json:"owner"`
	Digest  string `json:"digest"` // of the manifest
	Tree    string `json:"tree"`   // its key
	Mode    Mode   `json:"mode"`
	Dir     string `json:"dir,omitempty"` // where its copy is, or is to be
}

// RootFS unpacks the image unless that is done, and notes durably that
// lease.Owner uses it. A second call with the same owner and image returns the
// same.
//
// Errors: ErrInvalid if a layer is damaged or larger than the limits permit, or
// names what can't be; ErrExists if the owner has a lease of another image;
// ErrExhausted; ErrNotFound if the image was removed meanwhile.
func (s *Store) RootFS(ctx context.Context, img *Image, lease *Lease) (*RootFS, error) {
	note, dir, err := s.use(ctx, img, lease, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	if note.Mode == modeDisk {
		return nil, problem("lease of "+lease.Owner, caisson.ErrExists, errors.New("it is of the image as a disk"))
	}
	if note.Mode == ModeOverlay {
		return s.rootOf(dir, note.Mode)
	}
	mode, err := s.copyTree(ctx, dir, note.Dir)
	if err != nil {
		return nil, err
	}
	return s.rootOf(note.Dir, mode)
}

// use makes the image's tree be there, and what more makes of it, and writes
// the lease. It returns the lease that holds, and the tree's folder.
func (s *Store) use(ctx context.Context, img *Image, lease *Lease, more func(tree string) error) (*leaseNote, string, error) {
	if img.isMachine() != (lease.Mode == modeMachine) {
		return nil, "", problem(img.Name, caisson.ErrUnsupported, errors.New("the image of a machine is no root file system, and the other way round"))
	}
	note, err := s.noteOf(img, lease)
	if err != nil {
		return nil, "", err
	}
	claim, err := s.newClaim(ctx)
	if err != nil {
		return nil, "", err
	}
	defer claim.release()
	if err := s.claimImage(claim, img, note.Tree); err != nil {
		return nil, "", err
	}
	dir, err := s.tree(ctx, img, lease.Progress)
	if err != nil {
		return nil, "", err
	}
	if err := more(dir); err != nil {
		return nil, "", err
	}
	return note, dir, s.writeLease(ctx, note)
}

// rootOf returns the root file system in dir.
func (s *Store) rootOf(dir string, mode Mode) (*RootFS, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, sorted(dir, err)
	}
	return &RootFS{Path: filepath.Join(path, rootName), Shared: mode == ModeOverlay, Mode: mode}, nil
}

// noteOf returns the lease to be written, or the one that is there.
func (s *Store) noteOf(img *Image, lease *Lease) (*leaseNote, error) {
	if lease.Owner == "" || len(lease.Owner) > maxOwner || strings.ContainsAny(lease.Owner, "\x00\n") {
		return nil, problem(fmt.Sprintf("lease of %q", shorten(lease.Owner)), caisson.ErrInvalid, errors.New("an owner has 1 to 255 bytes on one line"))
	}
	if lease.Dir != "" && !filepath.IsAbs(lease.Dir) {
		return nil, problem(lease.Dir, caisson.ErrInvalid, errors.New("the folder for a copy must be absolute"))
	}
	old, err := readLease(s.leasePath(lease.Owner))
	switch {
	case err == nil && old.Digest != img.Digest:
		return nil, problem("lease of "+lease.Owner, caisson.ErrExists, fmt.Errorf("it is of another image, %s", old.Digest))
	case err == nil:
		old.Tree = s.treeKey(img) // the operator may have changed how it is unpacked
		return old, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, sorted("lease of "+lease.Owner, err)
	}
	note := &leaseNote{Version: 1, Owner: lease.Owner, Digest: img.Digest, Tree: s.treeKey(img), Mode: lease.Mode, Dir: lease.Dir}
	modes, err := s.modes()
	if err != nil {
		return nil, err
	}
	if note.Mode == "" || note.Mode == ModeOverlay {
		note.Mode = modes[0]
	}
	if note.Mode == ModeOverlay || note.Mode == modeDisk || note.Mode == modeMachine {
		note.Dir = ""
	} else if note.Dir == "" {
		note.Dir = s.path(copiesDir, strings.TrimSuffix(fileOf(lease.Owner), jsonEnd))
	}
	return note, nil
}

// claimImage claims all that the image is made of, and sees that it is there.
func (s *Store) claimImage(claim *claim, img *Image, key string) error {
	digests := []v1.Hash{mustHash(img.Digest), img.manifest.Config.Digest}
	for i := range img.manifest.Layers {
		digests = append(digests, img.manifest.Layers[i].Digest)
	}
	if err := claim.add(digests...); err != nil {
		return err
	}
	if err := claim.addTree(key); err != nil {
		return err
	}
	for _, digest := range digests {
		if s.blobs.size(digest) < 0 {
			return problem(img.Name, caisson.ErrNotFound, errors.New("the image was removed from the store meanwhile"))
		}
	}
	return nil
}

func (s *Store) leasePath(owner string) string { return s.path(leasesDir, fileOf(owner)) }

func readLease(path string) (*leaseNote, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	note := new(leaseNote)
	if err := json.Unmarshal(data, note); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return note, nil
}

// writeLease makes a lease durable. The claim holds until then.
func (s *Store) writeLease(ctx context.Context, note *leaseNote) error {
	guard, err := s.share(ctx)
	if err != nil {
		return err
	}
	defer guard.Release()
	path := s.leasePath(note.Owner)
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data)+"\n" {
		return nil
	}
	if err := os.MkdirAll(s.path(leasesDir), 0o700); err != nil {
		return sorted(path, err)
	}
	crash.Point(crash.LeaseBefore)
	if err := atomicfile.Write(path, append(data, '\n'), 0o600); err != nil {
		return sorted("lease of "+note.Owner, err)
	}
	crash.Point(crash.LeaseAfter)
	return nil
}

// leases returns all leases.
func (s *Store) leases() ([]*leaseNote, error) {
	entries, err := os.ReadDir(s.path(leasesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, sorted(s.path(leasesDir), err)
	}
	var list []*leaseNote
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) {
			continue
		}
		note, err := readLease(filepath.Join(s.path(leasesDir), e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, sorted(e.Name(), err)
		}
		list = append(list, note)
	}
	return list, nil
}

// leased counts the leases by manifest.
func (s *Store) leased() (map[string]int, error) {
	list, err := s.leases()
	if err != nil {
		return nil, err
	}
	used := map[string]int{}
	for _, note := range list {
		used[note.Digest]++
	}
	return used, nil
}

// Unlease forgets the lease of owner and removes a copy that the store made for
// it. That there is none is no error.
func (s *Store) Unlease(ctx context.Context, owner string) error {
	note, err := readLease(s.leasePath(owner))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return sorted("lease of "+owner, err)
	}
	// The copy is gone at once: a removal that is cut must not leave a part of it.
	mine := filepath.Dir(note.Dir) == s.path(copiesDir)
	if mine {
		if err := s.discard(note.Dir); err != nil {
			return err
		}
	}
	if err := os.Remove(s.leasePath(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sorted("lease of "+owner, err)
	}
	if mine {
		return s.emptyTrash(ctx)
	}
	return nil
}

// Sweep forgets the leases whose owner is not live, and removes what killed
// processes have left.
func (s *Store) Sweep(ctx context.Context, live func(owner string) bool) error {
	if _, err := os.Lstat(s.path(versionFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	list, err := s.leases()
	if err != nil {
		return err
	}
	var errs []error
	for _, note := range list {
		if !live(note.Owner) {
			errs = append(errs, s.Unlease(ctx, note.Owner))
		}
	}
	errs = append(errs, s.tidy(ctx))
	return errors.Join(errs...)
}
