package tmpfs_test

import (
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/mounttest"
	"github.com/caissonrun/caisson/mount/tmpfs"
)

func opts(kv ...string) caisson.Mount {
	m := caisson.Mount{Opts: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		m.Opts[kv[i]] = kv[i+1]
	}
	return m
}

func TestMounter(t *testing.T) {
	mounttest.Test(t, mounttest.Harness{
		New: func(*testing.T) mount.Mounter { return tmpfs.New() },
		Invalid: map[string]caisson.Mount{
			"source": {Source: "/x"}, "readonly": {ReadOnly: true}, "size": opts("size", "much"), "no size": opts("size", "0"),
			"negative": opts("size", "-1"), "mode": opts("mode", "rwx"), "set-id": opts("mode", "4755"), "no mode": opts("mode", "0"),
		},
	})
}

func TestMount(t *testing.T) {
	for _, c := range []struct {
		m    caisson.Mount
		size caisson.Bytes
		mode uint32
	}{{opts(), 0, 0}, {opts("size", "64m", "mode", "0750"), 64 * caisson.MiB, 0o750}, {opts("mode", "1777"), 0, 0o1777}} {
		c.m.Target = "/t"
		got, err := tmpfs.New().Mount(t.Context(), &mount.Request{Mount: c.m, Save: func(*mount.Place) error { return nil }})
		if err != nil || got.Size != c.size || got.Mode != c.mode || got.Source != "" {
			t.Errorf("Mount(%v) = %+v, %v", c.m.Opts, got, err)
		}
	}
}
