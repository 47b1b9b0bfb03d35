//go:build unix

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/ext4"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	diskFile = "disk.ext4" // in a tree's folder: the tree as a disk
	// perEntry is what a file takes on a disk at most beside its contents: the
	// rest of its last block, its attributes, its inode and its name.
	perEntry = 12 << 10
)

// A Disk is an unpacked image as a file system that a guest reads. Nothing in
// it is trusted, but the file system itself is Caisson's own.
type Disk struct {
	Path string // of a raw disk with ext4, which nobody may write to
	Size caisson.Bytes
	// Root is the unpacked folder that it was made of, which nobody may write to
	// either: for looking into it. Its owners and modes need not be the image's.
	Root string
}

// Disk makes the image's root file system a disk for guests unless that is
// done, and notes durably that lease.Owner uses it: as RootFS, but there is
// never a copy. All users of the image share the disk. Owners and modes are
// those that the layers name, also where the unpacked files are all the caller's.
// lease.Mode and lease.Dir have no meaning.
//
// Errors: as RootFS; ErrUnsupported for a file that ext4 can't have.
func (s *Store) Disk(ctx context.Context, img *Image, lease *Lease) (*Disk, error) {
	own := *lease
	own.Mode, own.Dir = modeDisk, ""
	var disk *Disk
	_, _, err := s.use(ctx, img, &own, func(tree string) (err error) {
		disk, err = s.disk(ctx, img, tree)
		return err
	})
	return disk, err
}

// disk makes the disk of a tree be there. Of several callers, in all processes,
// one makes it and the others wait.
func (s *Store) disk(ctx context.Context, img *Image, tree string) (*Disk, error) {
	tree, err := filepath.EvalSymlinks(tree)
	if err != nil {
		return nil, sorted(img.Name, err)
	}
	if disk, err := diskOf(tree); disk != nil || err != nil {
		return disk, sorted(img.Name, err)
	}
	lock, err := lockfile.Acquire(ctx, tree+lockSuffix)
	if err != nil {
		return nil, sorted(img.Name, err)
	}
	defer func() {
		os.Remove(tree + lockSuffix)
		lock.Release()
	}()
	if disk, err := diskOf(tree); disk != nil || err != nil {
		return disk, sorted(img.Name, err)
	}
	if err := s.makeDisk(ctx, tree); err != nil {
		return nil, sorted(img.Name, err)
	}
	disk, err := diskOf(tree)
	return disk, sorted(img.Name, err)
}

// diskOf returns a tree's disk, nil if it has none.
func diskOf(tree string) (*Disk, error) {
	path := filepath.Join(tree, diskFile)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Disk{Path: path, Size: caisson.Bytes(info.Size()), Root: filepath.Join(tree, rootName)}, nil
}

// makeDisk makes the disk of a tree under another name, and renames it once it
// is complete and durable. What is left of a maker that was killed is
// replaced, or goes with the tree.
func (s *Store) makeDisk(ctx context.Context, tree string) (err error) {
	dir, err := safefs.Open(tree, nil)
	if err != nil {
		return err
	}
	defer dir.Close()
	temp := diskFile + newSuffix
	if err := dir.RemoveAll(ctx, temp); err != nil {
		return err
	}
	// The store lets nobody else in; a guest has no more than the file.
	f, err := dir.Create(temp, 0o444, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.RemoveAll(context.WithoutCancel(ctx), temp))
		}
	}()
	if _, err := s.writeDisk(ctx, f, dir, &DiskOptions{}); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	crash.Point(crash.DiskBefore)
	if err := dir.Rename(temp, diskFile); err != nil {
		return err
	}
	crash.Point(crash.DiskAfter)
	return dir.Sync(".")
}

// DiskOptions say what a disk of an image is to have besides.
type DiskOptions struct {
	// Size makes it one that can be written to, at least so large. 0: it has room
	// for the image alone, and nobody writes to it.
	Size caisson.Bytes
	// Add returns what is to be added. It may look at the image's files.
	Add func(root *safefs.Root) ([]DiskFile, error)
}

// A DiskFile is a file of a disk that its image does not have.
type DiskFile = ext4.Added

// WriteDisk writes the image's root file system to the new and empty file f, as
// Disk does, for a use outside of the store. It is unpacked for that if need be.
//
// Errors: as Disk.
func (s *Store) WriteDisk(ctx context.Context, img *Image, f *os.File, opts *DiskOptions) (*Disk, error) {
	if img.isMachine() {
		return nil, problem(img.Name, caisson.ErrUnsupported, errors.New("it is the image of a machine already"))
	}
	claim, err := s.newClaim(ctx)
	if err != nil {
		return nil, err
	}
	defer claim.release()
	if err := s.claimImage(claim, img, s.treeKey(img)); err != nil {
		return nil, err
	}
	tree, err := s.tree(ctx, img, nil)
	if err != nil {
		return nil, err
	}
	dir, err := safefs.Open(tree, nil)
	if err != nil {
		return nil, sorted(img.Name, err)
	}
	defer dir.Close()
	size, err := s.writeDisk(ctx, f, dir, opts)
	if err != nil {
		return nil, sorted(img.Name, err)
	}
	return &Disk{Path: f.Name(), Size: size}, nil
}

// writeDisk writes the tree in dir to f.
func (s *Store) writeDisk(ctx context.Context, f *os.File, dir *safefs.Root, more *DiskOptions) (caisson.Bytes, error) {
	root, err := dir.Sub(rootName)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	limits := &s.opts.Limits
	opts := &ext4.TreeOptions{
		Options:    ext4.Options{Name: filepath.Base(dir.Name()), Label: "caisson-image"},
		MaxEntries: limits.Entries + 1, Size: more.Size,
		MaxBytes: max(limits.Bytes+caisson.Bytes(limits.Entries+1)*perEntry, more.Size),
	}
	if more.Add != nil {
		if opts.Add, err = more.Add(root); err != nil {
			return 0, err
		}
	}
	owners, err := openOwners(dir)
	if err != nil {
		return 0, err
	}
	if owners != nil {
		defer owners.close()
		opts.Change = owners.next
	}
	sum, err := ext4.WriteTree(ctx, f, root, opts)
	if err != nil {
		return 0, err
	}
	if owners != nil {
		return sum.Size, owners.end()
	}
	return sum.Size, nil
}

// treeSize returns what a tree takes on disk, with what was made of it.
func treeSize(dir string) (*treeInfo, error) {
	info, err := treeInfoOf(dir)
	if err != nil {
		return nil, err
	}
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	disk, err := root.Stat(diskFile)
	if err == nil {
		info.Bytes += caisson.Bytes(disk.Blocks)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return info, nil
}
