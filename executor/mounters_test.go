//go:build unix

package executor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/mount"
)

// custom is a mounter as another program has: it writes down what it is asked,
// by the id of the mount.
type custom struct {
	kind   string
	fail   bool // the mount at /bad
	called []string
}

func (c *custom) Type() string { return c.kind }

func (c *custom) Check(m caisson.Mount, _ mount.Env) error { return mount.CheckTarget(m) }

func (c *custom) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	c.called = append(c.called, "mount "+req.ID())
	if c.fail && req.Mount.Target == "/bad" {
		return nil, mount.Invalid(req.Mount, "ordered")
	}
	place := mount.NewPlace(req)
	place.Source = req.Dir
	return place, req.Save(place)
}

func (c *custom) Release(_ context.Context, place *mount.Place) error {
	c.called = append(c.called, "release "+place.ID)
	return nil
}

// calls returns what was asked, with the task's id left out.
func (c *custom) calls(id string) string {
	return strings.ReplaceAll(strings.Join(c.called, ", "), id+"/", "")
}

// TestMounterCalls holds that a mount is made and released once each, by the
// same id, however the task ends, and that what failed half-way is undone.
func TestMounterCalls(t *testing.T) {
	twice := "mount 1/0, mount 1/1, release 1/1, release 1/0"
	for _, c := range []struct {
		name, script, want string
		bad, stop          bool
	}{
		{name: "Success", script: "true", want: twice},
		{name: "Failure", script: "exit 3", want: twice},
		{name: "Cancel", script: "hold", stop: true, want: twice},
		{name: "ErrMount", script: "true", bad: true, want: "mount 1/0, mount 1/1, release 1/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			p := r.process()
			m := &custom{kind: "mymounter", fail: c.bad}
			if err := p.mounters.add(m); err != nil {
				t.Fatal(err)
			}
			task := sh(c.script)
			task.Mounts = []caisson.Mount{{Type: "mymounter", Target: "/good"}, {Type: "mymounter", Target: "/bad"}}
			id := p.submit(task)
			wait := p.attendAsync(id, false)
			if c.stop {
				r.reached(id, caisson.EventStarted, "main")
				if err := p.Stop(t.Context(), id, engine.Stop{Reason: caisson.ReasonKilled}); err != nil {
					t.Fatal(err)
				}
			}
			wait()
			if got := m.calls(id); got != c.want {
				t.Errorf("calls = %s\nwant    %s", got, c.want)
			}
		})
	}
}

func TestMounterOfEngine(t *testing.T) {
	one, two := &custom{kind: "x"}, &custom{kind: "x"}
	other := mem.New(&mem.Options{Name: "other"})
	defer other.Close()
	here := mem.New(nil)
	defer here.Close()
	x, err := New(&Options{
		State: t.TempDir() + "/state", Engines: []engine.Engine{other, here},
		Mounters: []mount.Mounter{mount.Only(one, "mem"), mount.Only(two, "elsewhere")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	task := sh("true")
	task.Mounts = []caisson.Mount{{Type: "x", Target: "/x"}}
	id, err := x.Submit(t.Context(), task, &Submission{BaseDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if result, err := x.Wait(t.Context(), id); err != nil || !result.Success {
		t.Errorf("Wait = %+v, %v", result, err)
	}
	if len(one.called) != 2 || len(two.called) != 0 {
		t.Errorf("calls = %q and %q, want both of the first", one.called, two.called)
	}
	task = sh("true")
	task.Engine = "other"
	task.Mounts = []caisson.Mount{{Type: "x", Target: "/x"}}
	_, err = x.Submit(t.Context(), task, &Submission{BaseDir: t.TempDir()})
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "engine mem, elsewhere only") {
		t.Errorf("Submit = %v, want that it is for other engines", err)
	}
}

func TestMountersDuplicate(t *testing.T) {
	for _, c := range []struct {
		name string
		list []mount.Mounter
		want bool
	}{
		{"Same", []mount.Mounter{&custom{kind: "x"}, &custom{kind: "x"}}, true},
		{"OneOfAll", []mount.Mounter{&custom{kind: "x"}, mount.Only(&custom{kind: "x"}, "mem")}, true},
		{"Overlap", []mount.Mounter{mount.Only(&custom{kind: "x"}, "a", "mem"), mount.Only(&custom{kind: "x"}, "mem")}, true},
		{"OtherEngine", []mount.Mounter{mount.Only(&custom{kind: "x"}, "a"), mount.Only(&custom{kind: "x"}, "mem")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := New(&Options{State: t.TempDir() + "/state", Mounters: c.list})
			if err == nil {
				x.Close()
			}
			if got := errors.Is(err, caisson.ErrExists); got != c.want {
				t.Errorf("New = %v, want exists: %v", err, c.want)
			}
		})
	}
}

// TestMounterUnknown holds that a type nobody has is told with those that
// there are.
func TestMounterUnknown(t *testing.T) {
	p := newRig(t).process()
	task := sh("true")
	task.Mounts = []caisson.Mount{{Type: "mymounter", Target: "/x"}}
	_, err := p.Submit(t.Context(), task, &Submission{BaseDir: t.TempDir()})
	if !errors.Is(err, caisson.ErrUnsupported) || !slices.ContainsFunc(p.opts.Mounters, func(m mount.Mounter) bool {
		return strings.Contains(err.Error(), `"mymounter"`) && strings.Contains(err.Error(), m.Type())
	}) {
		t.Errorf("Submit = %v, want the type and those that there are", err)
	}
}
