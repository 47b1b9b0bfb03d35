//go:build unix

package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/cache"
	"github.com/caissonrun/caisson/mount/mounttest"
)

func newMounter(t *testing.T, dir string) *cache.Mounter {
	t.Helper()
	m, err := cache.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMounter(t *testing.T) {
	dirs := map[string]string{}
	mounttest.Test(t, mounttest.Harness{
		New: func(t *testing.T) mount.Mounter {
			if dirs[t.Name()] == "" {
				dirs[t.Name()] = filepath.Join(t.TempDir(), "caches")
			}
			return newMounter(t, dirs[t.Name()])
		},
		Mount:      caisson.Mount{Source: "go-build"},
		Persistent: true,
		Exclusive:  true,
		Invalid: map[string]caisson.Mount{
			"no name": {}, "path": {Source: "a/b"}, "up": {Source: ".."}, "hidden": {Source: ".x"}, "dash": {Source: "-x"},
			"newline": {Source: "a\nb"}, "long": {Source: string(make([]byte, 65))}, "empty byte": {Source: "a\x00"},
		},
	})
}

func request(t *testing.T, source string) *mount.Request {
	return &mount.Request{
		Mount: caisson.Mount{Type: "cache", Source: source, Target: "/c"}, Task: caisson.NewTaskID(time.Now()), Attempt: 1,
		Env: mount.Env{UID: os.Geteuid(), GID: os.Getegid()}, Dir: t.TempDir(), Save: func(*mount.Place) error { return nil },
	}
}

// Of many tasks that want a cache at the same moment, which does not exist,
// exactly one gets it.
func TestRace(t *testing.T) {
	dir := t.TempDir()
	var got atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		req := request(t, "c")
		m := newMounter(t, dir)
		wg.Go(func() {
			_, err := m.Mount(t.Context(), req)
			if err == nil {
				got.Add(1)
			} else if !errors.Is(err, caisson.ErrExists) {
				t.Errorf("Mount = %v", err)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d tasks have the cache", got.Load())
	}
}

func TestListAndRemove(t *testing.T) {
	m := newMounter(t, t.TempDir())
	place, err := m.Mount(t.Context(), request(t, "c"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := m.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "c" || !list[0].InUse || list[0].UsedAt.IsZero() {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := m.Remove(t.Context(), "c"); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Remove of one in use = %v, want ErrExists", err)
	}
	if err := m.Release(t.Context(), place); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	if err := m.Release(t.Context(), place); err != nil {
		t.Errorf("Release after Remove = %v", err)
	}
	if err := m.Remove(t.Context(), "c"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Remove again = %v, want ErrNotFound", err)
	}
}
