package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/machine"
)

// origin asks a box what it began with.
func origin(t *testing.T, b *box) (o engine.Origin) {
	t.Helper()
	data, _, err := b.Do(kept.OpOrigin, nil)
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// testCopies holds that a running machine can be copied: the program goes on in each
// copy where it was, with an output that begins there, other random numbers and a
// name of its own, and neither knows of the other.
func testCopies(t *testing.T, p *parts) {
	b := open(t, p.spec(t))
	if o := origin(t, b); !o.From && !o.Saved {
		t.Errorf("origin = %+v, want a saved state, or that one was made", o)
	}
	const waits = "echo before; while ! [ -e /dev/shm/go ]; do sleep 0.1; done; cat /dev/shm/go"
	main := shell(t, b, waits)
	if got := line(t, main.stdout); got != "before" {
		t.Fatalf("the program prints %q", got)
	}
	dir := t.TempDir()
	params, err := json.Marshal(&kept.SnapshotRequest{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Do(kept.OpSnapshot, params); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	if info, err := os.Lstat(filepath.Join(dir, snapshotMemory)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its memory: %v, %v, want that only its owner reads it", info, err)
	}
	seen := map[string]bool{}
	draws := func(b *box) {
		t.Helper()
		got := output(t, b, "head -c 16 /dev/urandom")
		if seen[got] {
			t.Error("two machines draw the same random numbers")
		}
		seen[got] = true
	}
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			c := open(t, p.copyOf(t, dir, name))
			r := shell(t, c, "exit 99") // not started: the program is there
			if got, want := output(t, c, "hostname; cat /etc/machine-id; echo "+name+" >/dev/shm/go"), name+"\n"+kept.MachineID(name)+"\n"; got != want {
				t.Errorf("a copy is called %q, want %q", got, want)
			}
			draws(c)
			if got := prints(t, r.stdout); got != name+"\n" {
				t.Errorf("the program prints %q in a copy, want what comes after the snapshot", got)
			}
			if code, signal := r.ends(t); code != 0 || signal != 0 {
				t.Errorf("it ends with %d, %d in a copy", code, signal)
			}
		})
	}
	// The original has noticed nothing.
	draws(b)
	if got := output(t, b, "hostname; echo original >/dev/shm/go"); got != "box\n" {
		t.Errorf("the original is called %q", got)
	}
	if got := prints(t, main.stdout); got != "original\n" {
		t.Errorf("the original goes on with %q", got)
	}
	if code, signal := main.ends(t); code != 0 || signal != 0 {
		t.Errorf("it ends with %d, %d", code, signal)
	}
	if _, _, err := b.Do(kept.OpSnapshot, params); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("snapshot after the program's end = %v, want ErrEnded", err)
	}
}

// testOtherDisks holds that what was saved of a guest which knew nothing of its disks goes
// on with any: here with another image, and a disk to write to of another size.
func testOtherDisks(t *testing.T, p *parts) {
	other := *p
	other.image = testImage(t, map[string]string{"etc/other": "another image\n", "var/large": strings.Repeat("x", 3<<20)})
	const layerSize = 96 << 20
	m := other.machine()
	m.Disks = append(m.Disks, layerOf(t, layerSize))
	shape, err := p.qemu.Shape(m, func(path string) string { return path }, "test")
	if err != nil {
		t.Fatal(err)
	}
	states, err := machine.OpenStates(p.states, nil)
	if err != nil {
		t.Fatal(err)
	}
	state, err := states.Find("any", shape.WithoutDisks())
	if err != nil {
		t.Fatalf("Find() = %v, want what the first machine has left", err)
	}
	m.Incoming = true
	s := other.specOf(t, m)
	s.State, s.Diskless = state.File, true
	b := open(t, s)
	if o := origin(t, b); !o.From || o.Saved {
		t.Errorf("origin = %+v, want a saved state", o)
	}
	if got, want := output(t, b, "cat /etc/other; head -c 2 /var/large; hostname"), "another image\nxxbox\n"; got != want {
		t.Errorf("it shows %q, want what is on its own disk: %q", got, want)
	}
	if got, want := output(t, b, "cat /proc/partitions"), fmt.Sprint(layerSize>>10, " vdb\n"); !strings.Contains(got, want) {
		t.Errorf("its disks are %q, want one that is as large as it is now: %q", got, want)
	}
}

// copyOf is a machine that goes on from a snapshot.
func (p *parts) copyOf(t *testing.T, dir, name string) *boxSpec {
	t.Helper()
	snap, err := readSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := layered(t, p.machine())
	m.Incoming = true
	s := p.specOf(t, m)
	for disk, path := range s.Disks {
		// As the engine makes it: see copied.
		if err := fillDisk(path, snap.disk(dir, disk)); err != nil {
			t.Fatal(err)
		}
	}
	s.State, s.Attach, s.Guest = filepath.Join(dir, snapshotMemory), &snap.Program, guestSpec{Hostname: name, MachineID: kept.MachineID(name)}
	return s
}

// TestReadSnapshot holds that what is no snapshot is told as such.
func TestReadSnapshot(t *testing.T) {
	dir := t.TempDir()
	for _, contents := range []string{"", "{", `{"version": 99}`} {
		if contents != "" {
			if err := os.WriteFile(filepath.Join(dir, snapshotMeta), []byte(contents), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := readSnapshot(dir); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("readSnapshot() of %q = %v, want ErrInvalid", contents, err)
		}
	}
}

// TestCopyIsAnother holds that a copy of a machine with a system of its own is told to be
// another one, and that nothing else is done in it again.
func TestCopyIsAnother(t *testing.T) {
	s := ownSpec(t, "/disk", 1<<30, "true")
	s.Hostname, s.User, s.Snapshot = "copy", "1234", t.TempDir()
	if err := os.WriteFile(filepath.Join(s.Snapshot, snapshotMeta), []byte(`{"version": 1, "program": {"id": 1}, "disks": ["disk"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	set := &setting{opts: &Options{}, own: &own{image: s.MachineImage}}
	bs, in := &boxSpec{Guest: set.ownGuest(s), Disks: map[string]string{ownDisk: "/layer"}}, &machine.Spec{}
	if err := set.beginCopy(s, bs, in); err != nil {
		t.Fatal(err)
	}
	want := guestSpec{Hostname: "copy", MachineID: kept.MachineID(s.ID), UUID: uuid(s.ID), NewKeys: true}
	if !reflect.DeepEqual(bs.Guest, want) || !in.Incoming || bs.Attach == nil {
		t.Errorf("a copy is told %+v, want %+v", bs.Guest, want)
	}
	// What the image says of the machine stays.
	set.own.UUID = "5b1f6e8c-0a2d-4c3e-9f10-112233445566"
	if g := set.ownGuest(s); g.UUID != "" {
		t.Errorf("a copy of a machine with a UUID of its image's is told %q", g.UUID)
	}
	bs.Disks["other"] = "/other"
	if err := set.beginCopy(s, bs, in); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a copy with another disk = %v, want ErrInvalid", err)
	}
}
