// Package disk gives a folder a bounded amount of room: by a project quota
// where the file system keeps them (ext4 or xfs mounted with prjquota, Linux
// 5.14), else by an ext4 image on a loop device (Linux 5.8, mkfs.ext4), else,
// where loop devices are missing, by a tmpfs, which memory pays for. All of
// them need root; without it a folder can't be bounded.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
)

// The ways to bound a folder, best first.
const (
	MethodQuota = "quota" // project quota of ext4 or xfs
	MethodLoop  = "loop"  // ext4 in a sparse file on a loop device
	MethodTmpfs = "tmpfs" // memory
)

// Support is what can be done for a folder.
type Support struct {
	Method string // empty: nothing works
	Why    string // why better methods, or all of them, do not work
	Do     string // what the operator can do about it; may be empty
}

// A Place is a folder with bounded room: enough to undo it.
type Place struct {
	Dir    string        `json:"dir"`
	Method string        `json:"method"`
	Size   caisson.Bytes `json:"size"`
	// Project is the quota's project id. MethodQuota only.
	Project uint32 `json:"project,omitempty"`
	// Image is the file behind the loop device. MethodLoop only.
	Image string `json:"image,omitempty"`
}

// A method is one way to bound a folder.
type method struct {
	name string
	// usable returns why the method can't work for dir, without trying it.
	usable func(dir string) error
	// plan completes a place with what make will make.
	plan func(*Place) error
	// make makes it. What it leaves on error, undo removes.
	make func(context.Context, *Place) error
	// undo undoes make, wherever that stopped, and can be called again.
	undo func(context.Context, *Place) error
}

// Probe finds out, by doing it below dir, how folders there can be bounded.
// Nothing is left, and what an earlier one that was killed has left is removed.
func Probe(dir string) Support {
	clearProbes(dir)
	var why []error
	for _, m := range methods {
		err := try(dir, &m)
		if err == nil {
			return Support{Method: m.name, Why: text(why), Do: advice(why)}
		}
		why = append(why, fmt.Errorf("%s: %w", m.name, err))
	}
	if len(methods) == 0 {
		return Support{Why: "this system has no way to bound a folder"}
	}
	return Support{Why: text(why), Do: "run as root, on a host with loop devices and mkfs.ext4, or with project quotas"}
}

// Create bounds the empty folder dir to size: writing more ends in ENOSPC, or
// EDQUOT with a quota. A quota does not hold for root itself, only for root in
// a user namespace of its own and for all others. What a file system needs for itself counts, too. Before
// it makes anything Create calls save with what Remove would need; of several
// calls the last one counts. The folder keeps its owner and mode. On error
// nothing is left but dir itself.
//
// Errors: ErrUnsupported with the reasons of Probe; ErrInvalid for a folder
// that is not empty or a size that is too small; ErrExhausted where the host is
// out of room or loop devices.
func Create(ctx context.Context, dir string, size caisson.Bytes, save func(Place) error) (*Place, error) {
	dir, err := emptyFolder(dir)
	if err != nil {
		return nil, wrong(dir, err)
	}
	var why []error
	for _, m := range methods {
		if err := m.usable(dir); err != nil {
			why = append(why, fmt.Errorf("%s: %w", m.name, err))
			continue
		}
		place := &Place{Dir: dir, Method: m.name, Size: size}
		if err := m.plan(place); err != nil {
			return nil, err
		}
		if err := save(*place); err != nil {
			return nil, err
		}
		if err := m.make(ctx, place); err != nil {
			err = fmt.Errorf("disk limit by %s: %w", m.name, err)
			return nil, errors.Join(err, m.undo(context.WithoutCancel(ctx), place))
		}
		return place, nil
	}
	if len(why) == 0 {
		why = append(why, errors.New("this system has no way to bound a folder"))
	}
	return nil, &caisson.Error{Item: "disk limit", Kind: caisson.ErrUnsupported, Err: errors.New(text(why))}
}

// Remove undoes Create, also one that was cut short, and can be called again.
// The folder stays, and what a quota bounded in it, from then on without a
// bound; what lay in an image or a tmpfs is gone.
func Remove(ctx context.Context, place *Place) error {
	for _, m := range methods {
		if m.name == place.Method {
			return m.undo(ctx, place)
		}
	}
	return &caisson.Error{
		Item: "disk limit", Kind: caisson.ErrInvalid,
		Err: fmt.Errorf("%s: %q is no way to bound a folder", place.Dir, place.Method),
	}
}

// emptyFolder returns dir without symbolic links, so that it can be told among
// the mounts.
func emptyFolder(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dir, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return dir, err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return dir, err
}

// try bounds a new folder below dir with one method and removes it again.
func try(dir string, m *method) error {
	if err := m.usable(dir); err != nil {
		return err
	}
	parent, err := os.MkdirTemp(dir, probePrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(parent)
	lock, err := lockProbe(parent)
	if err != nil {
		return err
	}
	defer lock.Close()
	place := &Place{Dir: filepath.Join(parent, "disk"), Method: m.name, Size: probeSize}
	if err := os.Mkdir(place.Dir, 0o700); err != nil {
		return err
	}
	if err := m.plan(place); err != nil {
		return err
	}
	if err := savePlace(parent, place); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	err = m.make(ctx, place)
	if err == nil {
		err = unprivileged(func() error { return overflow(place) })
	}
	return errors.Join(err, m.undo(context.WithoutCancel(ctx), place))
}

// overflow writes more than fits and makes sure that it does not.
func overflow(place *Place) error {
	f, err := os.Create(filepath.Join(place.Dir, "probe"))
	if err != nil {
		return err
	}
	chunk := make([]byte, 64<<10)
	for range int(place.Size)/len(chunk) + 1 {
		if _, err = f.Write(chunk); err != nil {
			break
		}
	}
	// Some file systems notice when they write to the disk only.
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	os.Remove(f.Name())
	switch {
	case isFull(err):
		return nil
	case err != nil:
		return err
	}
	return errors.New("more was written than the limit permits")
}

// text joins reasons into one line.
func text(why []error) string {
	var line string
	for i, err := range why {
		if i > 0 {
			line += "; "
		}
		line += err.Error()
	}
	return line
}

// advice is what could be done for a better method than the one that works.
func advice(why []error) string {
	if len(why) == 0 {
		return ""
	}
	return "mount the file system of the state folder with project quotas (prjquota)"
}

// wrong says that the folder can't be bounded because of what it is.
func wrong(dir string, err error) error {
	kind := caisson.ErrInvalid
	if errors.Is(err, os.ErrNotExist) {
		kind = caisson.ErrNotFound
	}
	return &caisson.Error{Item: fmt.Sprintf("disk limit of %s", dir), Kind: kind, Err: err}
}
