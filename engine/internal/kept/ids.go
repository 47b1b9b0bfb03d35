package kept

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// idsDir is the folder, in the runtime folder, that has a link for each group
// of ids in use. The link's name is the group's number, and its target, which
// leads nowhere, the owner: made in one step, it is complete or not there.
const idsDir = "ids"

// takeSlot gives a sandbox host ids that no other one has.
//
// Errors: ErrExhausted.
func (b *Sandboxes) takeSlot(ctx context.Context, sandbox string) (int, error) {
	dir, owner := filepath.Join(b.opts.Runtime, idsDir), slotOwner(b.opts.Installation, sandbox)
	hash := fnv.New32a()
	hash.Write([]byte(owner))
	n := b.opts.IDs.Slots()
	first := int(hash.Sum32() % uint32(n))
	for i := range n {
		slot := (first + i) % n
		err := symlinkIn(dir, owner, strconv.Itoa(slot))
		if err == nil {
			return slot, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return 0, fmt.Errorf("user ids: %w", err)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return 0, &caisson.Error{
		Op: caisson.OpCreate, Item: sandbox, Kind: caisson.ErrExhausted,
		Err: fmt.Errorf("all %d groups of user ids are in use (engine.%s.id_count)", n, b.opts.Engine),
	}
}

// freeSlot gives a slot back. It can be called again.
func (b *Sandboxes) freeSlot(installation, sandbox string) error {
	_, err := b.freeSlots(func(owner string) bool { return owner == slotOwner(installation, sandbox) })
	return err
}

// freeSlots gives back all slots of chosen owners, and returns their sandboxes.
func (b *Sandboxes) freeSlots(choose func(owner string) bool) ([]string, error) {
	dir := filepath.Join(b.opts.Runtime, idsDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var freed []string
	var all []error
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		owner, err := os.Readlink(name)
		if err != nil || !choose(owner) {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
			continue
		}
		_, sandbox, _ := strings.Cut(owner, "/")
		freed = append(freed, sandbox)
	}
	// The folder goes with the last one.
	_ = os.Remove(dir)
	return freed, errors.Join(all...)
}

// slotOwner is the target of the link of a sandbox's slot.
func slotOwner(installation, sandbox string) string { return installation + "/" + sandbox }

// symlinkIn makes a link in a folder that others may remove while it is empty.
func symlinkIn(dir, target, name string) error {
	for range 100 {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fs.ErrNotExist
}
