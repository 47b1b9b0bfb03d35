// Package mounttest checks implementations of package mount's contract. The
// whole test of a mounter's semantics is one call of Test; what only it does it
// tests itself.
package mounttest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount"
)

// A Harness is what Test needs of an implementation.
type Harness struct {
	// New returns the mounter. It is called more than once in a test: each
	// value is as one of another process, and they share what is on disk.
	New func(t *testing.T) mount.Mounter
	// Mount returns a good mount but for Type and Target.
	Mount caisson.Mount
	// Parent is what the task is lent that the mounts are of.
	Parent *mount.Parent
	// Invalid lists mounts that are to be refused, by what is wrong.
	Invalid map[string]caisson.Mount
	// Persistent says that contents outlive the attempt.
	Persistent bool
	// Exclusive says that two tasks can't have the mount at once unless both
	// only read.
	Exclusive bool
}

// A rule is one case of the suite.
type rule struct {
	name, text string
	run        func(c *check)
}

// Test checks a Mounter.
func Test(t *testing.T, h Harness) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			c := &check{T: t, h: &h, mounter: h.New(t)}
			r.run(c)
			if t.Failed() {
				t.Logf("the rule: %s", r.text)
			}
		})
	}
}

// A check is one case under way.
type check struct {
	*testing.T
	h       *Harness
	mounter mount.Mounter
}

func (c *check) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// request returns a request of a new task, and what it has saved.
func (c *check) request(change ...func(*caisson.Mount)) (*mount.Request, *[]mount.Place) {
	m := c.h.Mount
	m.Type, m.Target = c.mounter.Type(), "/mnt"
	for _, f := range change {
		f(&m)
	}
	var saved []mount.Place
	req := &mount.Request{
		Env: mount.Env{BaseDir: c.TempDir(), Trusted: true, UID: os.Geteuid(), GID: os.Getegid(), Parent: c.h.Parent}, Mount: m,
		Task: caisson.NewTaskID(time.Now()), Attempt: 1, Dir: c.TempDir(),
		Save: func(p *mount.Place) error { saved = append(saved, reread(c.T, p)); return nil },
	}
	if os.Geteuid() == 0 {
		req.UID, req.GID = 1000, 1000
	}
	return req, &saved
}

// reread returns a place as it is after it was on disk.
func reread(t *testing.T, p *mount.Place) mount.Place {
	t.Helper()
	data, err := json.Marshal(p)
	var back mount.Place
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func (c *check) mount(req *mount.Request) *mount.Place {
	c.Helper()
	c.must(c.mounter.Check(req.Mount, req.Env))
	place, err := c.mounter.Mount(c.Context(), req)
	c.must(err)
	return place
}

func (c *check) release(place *mount.Place) {
	c.Helper()
	back := reread(c.T, place)
	c.must(c.h.New(c.T).Release(c.Context(), &back))
}

func readOnly(m *caisson.Mount) { m.ReadOnly = true }

var rules = []rule{
	{"Place", "Mount returns where the mount is", func(c *check) {
		req, _ := c.request()
		req.Index = 3
		place := c.mount(req)
		if place.Type != c.mounter.Type() || place.Index != 3 || place.Target != "/mnt" || place.ReadOnly {
			c.Errorf("place %+v", place)
		}
		if place.Source == "" {
			return
		}
		if _, err := os.Stat(place.Source); err != nil {
			c.Errorf("source: %v", err)
		}
		if real, err := filepath.EvalSymlinks(place.Source); err != nil || real != place.Source {
			c.Errorf("source %q has links in it: %q, %v", place.Source, real, err)
		}
		c.release(place)
	}},
	{"SavesFirst", "before it makes anything, Mount saves what Release needs", func(c *check) {
		req, saved := c.request()
		place := c.mount(req)
		if len(*saved) == 0 {
			c.Fatal("nothing was saved")
		}
		c.release(&(*saved)[0])
		c.release(place)
	}},
	{"ErrSave", "what can't be saved is not made", func(c *check) {
		req, _ := c.request()
		failed := errors.New("disk full")
		req.Save = func(*mount.Place) error { return failed }
		if _, err := c.mounter.Mount(c.Context(), req); !errors.Is(err, failed) {
			c.Errorf("Mount = %v, want the error of Save", err)
		}
		again, _ := c.request()
		c.release(c.mount(again)) // nothing is in the way
	}},
	{"ReleaseAgain", "Release can be called again, by any process", func(c *check) {
		req, _ := c.request()
		place := c.mount(req)
		for range 3 {
			c.release(place)
		}
	}},
	{"ReleaseNothing", "Release of a place whose Mount did not end is nil", func(c *check) {
		req, saved := c.request()
		stop := errors.New("crash")
		save := req.Save
		req.Save = func(p *mount.Place) error { return errors.Join(save(p), stop) }
		if _, err := c.mounter.Mount(c.Context(), req); !errors.Is(err, stop) {
			c.Fatalf("Mount = %v", err)
		}
		c.release(&(*saved)[0])
	}},
	{"MountAgain", "the same mount of the same attempt can be made again after a crash", func(c *check) {
		req, _ := c.request()
		first := c.mount(req)
		second := c.mount(req)
		if first.Source != second.Source {
			c.Errorf("sources %q and %q, want the same", first.Source, second.Source)
		}
		c.release(second)
	}},
	{"ErrInvalid", "Check and Mount refuse what is wrong before anything is done", func(c *check) {
		cases := map[string]func(*caisson.Mount){
			"no target":          func(m *caisson.Mount) { m.Target = "" },
			"root":               func(m *caisson.Mount) { m.Target = "/" },
			"up":                 func(m *caisson.Mount) { m.Target = "/a/../../b" },
			"proc":               func(m *caisson.Mount) { m.Target = "/proc/x" },
			"zero byte":          func(m *caisson.Mount) { m.Target = "/a\x00" },
			"unknown option":     func(m *caisson.Mount) { m.Opts = map[string]string{"no-such-option": "1"} },
			"up, relative":       func(m *caisson.Mount) { m.Target = "../x" },
			"device folder":      func(m *caisson.Mount) { m.Target = "/dev" },
			"unclean to root":    func(m *caisson.Mount) { m.Target = "//" },
			"option in capitals": func(m *caisson.Mount) { m.Opts = map[string]string{"MODE": "0700", "Size": "1m"} },
			// What a driver of Docker's would take for the host's /etc.
			"smuggled bind":   func(m *caisson.Mount) { m.Opts = map[string]string{"type": "none", "o": "bind", "device": "/etc"} },
			"smuggled device": func(m *caisson.Mount) { m.Opts = map[string]string{"device": "/dev/sda1"} },
			"smuggled driver": func(m *caisson.Mount) { m.Opts = map[string]string{"driver": "local"} },
		}
		for name, bad := range c.h.Invalid {
			cases[name] = func(m *caisson.Mount) { bad.Type, bad.Target = m.Type, m.Target; *m = bad }
		}
		for name, change := range cases {
			req, saved := c.request(change)
			if err := c.mounter.Check(req.Mount, req.Env); !errors.Is(err, caisson.ErrInvalid) {
				c.Errorf("%s: Check = %v, want ErrInvalid", name, err)
			}
			if _, err := c.mounter.Mount(c.Context(), req); !errors.Is(err, caisson.ErrInvalid) || len(*saved) > 0 {
				c.Errorf("%s: Mount = %v, saved %d, want ErrInvalid and nothing", name, err, len(*saved))
			}
		}
	}},
	{"Persistent", "contents outlive a task, or are new for each, as the type says", func(c *check) {
		req, _ := c.request()
		place := c.mount(req)
		if place.Source == "" {
			c.release(place)
			return
		}
		info, err := os.Stat(place.Source)
		c.must(err)
		if !info.IsDir() {
			c.release(place)
			return
		}
		c.must(os.WriteFile(filepath.Join(place.Source, "f"), []byte("data"), 0o644))
		c.release(place)
		next, _ := c.request()
		place = c.mount(next)
		data, err := os.ReadFile(filepath.Join(place.Source, "f"))
		if c.h.Persistent != (string(data) == "data") {
			c.Errorf("the next task finds %q, %v", data, err)
		}
		c.release(place)
	}},
	{"Exclusive", "a mount that can't be shared is ErrExists for another task until it is released", func(c *check) {
		if !c.h.Exclusive {
			c.Skip("it is shared")
		}
		req, _ := c.request()
		place := c.mount(req)
		for _, change := range []func(*caisson.Mount){func(*caisson.Mount) {}, readOnly} {
			other, _ := c.request(change)
			if _, err := c.mounter.Mount(c.Context(), other); !errors.Is(err, caisson.ErrExists) {
				c.Errorf("Mount for another task = %v, want ErrExists", err)
			}
		}
		c.release(place)
		other, _ := c.request()
		c.release(c.mount(other))
	}},
	{"SharedReadOnly", "tasks that only read share a mount, and keep writers out", func(c *check) {
		first, _ := c.request(readOnly)
		second, _ := c.request(readOnly)
		if first.Mount.Type == "tmpfs" {
			c.Skip("memory is not shared")
		}
		a, b := c.mount(first), c.mount(second)
		if !a.ReadOnly || !b.ReadOnly {
			c.Error("the places are not read-only")
		}
		c.release(a)
		if c.h.Exclusive {
			writer, _ := c.request()
			if _, err := c.mounter.Mount(c.Context(), writer); !errors.Is(err, caisson.ErrExists) {
				c.Errorf("Mount for a writer = %v, want ErrExists", err)
			}
		}
		c.release(b)
	}},
	{"SameTask", "a task can have the same source at several targets", func(c *check) {
		req, _ := c.request()
		a := c.mount(req)
		req.Index, req.Mount.Target = 1, "/other"
		b := c.mount(req)
		c.release(a)
		c.release(b)
		other, _ := c.request()
		c.release(c.mount(other))
	}},
	{"Sweep", "Sweep releases what attempts hold that are gone, and nothing else", func(c *check) {
		sweeper, ok := c.mounter.(mount.Sweeper)
		if !ok || !c.h.Exclusive {
			c.Skip("it holds nothing")
		}
		req, _ := c.request()
		c.mount(req)
		alive := func(task string, attempt int) bool { return task == req.Task && attempt == 1 }
		c.must(sweeper.Sweep(c.Context(), alive))
		other, _ := c.request()
		if _, err := c.mounter.Mount(c.Context(), other); !errors.Is(err, caisson.ErrExists) {
			c.Errorf("after a sweep with the task alive: %v, want ErrExists", err)
		}
		c.must(sweeper.Sweep(c.Context(), func(string, int) bool { return false }))
		c.release(c.mount(other))
	}},
	{"Owner", "folders that the mounter makes belong to the request's user", func(c *check) {
		req, _ := c.request()
		place := c.mount(req)
		defer c.release(place)
		if os.Geteuid() != 0 || !place.Owned || place.Source == "" {
			c.Skip("it makes none here")
		}
		if uid, gid := owner(c.T, place.Source); uid != req.UID || gid != req.GID {
			c.Errorf("%s belongs to %d:%d, want %d:%d", place.Source, uid, gid, req.UID, req.GID)
		}
	}},
}
