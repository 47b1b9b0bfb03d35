package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// A record remembers, on disk, the images that were pulled for tasks: who may
// use them and when that was last done. An image that is not in it is the
// operator's own: every task may use it, and it is never removed. Each image
// has a file of its own, so that several processes can write at once.
type record struct{ dir string }

// An entry is what is known of one image.
type entry struct {
	// Public says that it was pulled without a task's credentials, or was there
	// before.
	Public bool `json:"public"`
	// Keys are of the credentials with which it was pulled.
	Keys []string  `json:"keys,omitempty"`
	Used time.Time `json:"used"`
}

func newRecord(state string) *record { return &record{filepath.Join(state, "images")} }

func (r *record) path(id string) string {
	return filepath.Join(r.dir, strings.TrimPrefix(id, "sha256:")+".json")
}

// read returns what is known of an image, or nil.
func (r *record) read(id string) (*entry, error) {
	data, err := os.ReadFile(r.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := new(entry)
	return e, json.Unmarshal(data, e)
}

func (r *record) write(id string, e *entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	return safefs.Sorted("", r.path(id), atomicfile.Write(r.path(id), append(data, '\n'), 0o600))
}

// pulled notes that an image was pulled with credentials of a key.
func (r *record) pulled(id, key string) error {
	e, err := r.read(id)
	if err != nil {
		return err
	}
	if e == nil {
		e = new(entry)
	}
	e.Used = time.Now()
	switch {
	case key == "":
		e.Public = true
	case !slices.Contains(e.Keys, key):
		e.Keys = append(e.Keys, key)
	}
	return r.write(id, e)
}

// mayUse reports whether somebody with credentials of a key may use an image
// that is there.
func (r *record) mayUse(id, key string) bool {
	e, err := r.read(id)
	return err == nil && (e == nil || e.Public || key != "" && slices.Contains(e.Keys, key))
}

// usedStep is how exact the time of the last use is.
const usedStep = time.Minute

// used notes that an image is used. That it can't be noted harms nobody.
func (r *record) used(id string) {
	e, err := r.read(id)
	if err != nil || e == nil || time.Since(e.Used) < usedStep {
		return
	}
	e.Used = time.Now()
	_ = r.write(id, e)
}

// prune removes the images that were pulled for tasks and not used for ttl. One
// that a container uses stays.
func (m *images) prune(ctx context.Context, ttl time.Duration) (removed []string, err error) {
	files, err := os.ReadDir(m.record.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []error
	for _, f := range files {
		hex, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !imageID.MatchString(hex) {
			continue
		}
		id := "sha256:" + hex
		e, err := m.record.read(id)
		if err != nil || e == nil || time.Since(e.Used) < ttl {
			continue
		}
		gone, err := m.drop(ctx, id)
		if err != nil {
			all = append(all, err)
		}
		if gone {
			removed = append(removed, id)
			all = append(all, os.Remove(m.record.path(id)))
		}
	}
	return removed, errors.Join(all...)
}

// drop removes an image by all of its names, unless it is used.
func (m *images) drop(ctx context.Context, id string) (gone bool, err error) {
	r, err := call(ctx, "image "+id, func(ctx context.Context) (client.ImageInspectResult, error) {
		return m.daemon.ImageInspect(ctx, id)
	})
	if notFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, name := range append(slices.Clone(r.RepoTags), id) {
		_, err := call(ctx, "image "+name, func(ctx context.Context) (client.ImageRemoveResult, error) {
			return m.daemon.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true})
		})
		if exists(err) {
			return false, nil
		}
		if err != nil && !notFound(err) {
			return false, err
		}
	}
	return true, nil
}
