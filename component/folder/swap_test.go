//go:build unix

package folder_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
)

// afterStep is what a step has left, and afterSwap what the next one finds.
var (
	afterStep = map[string]string{
		"config.json": "{}", "in/state.json": "{}", "in/tables/a": "old", "in/tables/a.manifest": "{}", "in/tables/b": "old",
		"in/tables/b.manifest": "{}", "in/files/f": "old", "in/user/x": "x", "out/tables/a": "new", "out/tables/c/1": "slice",
		"out/state.json": "{}", "out/state.yml": "x", "out/usage.json": "[]", "out/other/x": "y", "artifacts/out/current/x": "z",
	}
	afterSwap = []string{
		"artifacts/", "artifacts/out/", "artifacts/out/current/", "artifacts/out/current/x=z", "config.json={}",
		"in/", "in/files/", "in/other/", "in/other/x=y", "in/tables/", "in/tables/a=new", "in/tables/c/", "in/tables/c/1=slice",
		"in/usage.json=[]", "in/user/", "out/", "out/files/", "out/tables/",
	}
)

func TestSwap(t *testing.T) {
	ctx := context.Background()
	f := newFolder(t, nil)
	step(t, f, afterStep)
	must(t, os.WriteFile(filepath.Join(f.Tmp(), "x"), nil, 0o644))
	got, err := f.Swap(ctx, 0)
	must(t, err)
	want := &folder.Dropped{Tables: []string{"b"}, Files: []string{"f"}, Manifests: []string{"tables/a.manifest"}}
	if diff := cmp.Diff(want, got); diff != "" || got.Empty() {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	check := func() {
		t.Helper()
		if diff := cmp.Diff(afterSwap, tree(t, f.Data())); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
		if left := tree(t, f.Tmp()); len(left) > 0 {
			t.Errorf("tmp has %q", left)
		}
	}
	check()

	again, err := f.Swap(ctx, 0)
	if again != nil || err != nil {
		t.Errorf("the same swap again = %v, %v", again, err)
	}
	check()
	next, err := f.Swap(ctx, 1)
	must(t, err)
	if diff := cmp.Diff([]string{"a", "c"}, next.Tables); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

// TestSwapAfterCrash begins where a swap can have been killed.
func TestSwapAfterCrash(t *testing.T) {
	ctx := context.Background()
	moved := func(w string) error { return os.Rename(w+"/data/in", w+"/used-0") }
	turned := func(w string) error { return errors.Join(moved(w), os.Rename(w+"/data/out", w+"/data/in")) }
	noted := func(w string) error {
		return errors.Join(turned(w), os.WriteFile(w+"/folder.json", []byte(`{"swaps":1}`), 0o600))
	}
	states := map[string]func(w string) error{
		"Moved":    moved,
		"Turned":   turned,
		"Noted":    noted,
		"Removed":  func(w string) error { return errors.Join(noted(w), os.RemoveAll(w+"/used-0")) },
		"HalfMade": func(w string) error { return errors.Join(noted(w), os.MkdirAll(w+"/data/out/tables", 0o755)) },
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, afterStep)
			w := filepath.Dir(f.Data())
			must(t, state(w))
			again, err := folder.Open(w, nil)
			must(t, err)
			defer again.Close()
			dropped, err := again.Swap(ctx, 0)
			if dropped != nil || err != nil {
				t.Errorf("Swap = %v, %v", dropped, err)
			}
			if diff := cmp.Diff(afterSwap, tree(t, f.Data())); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(w + "/used-0"); err == nil {
				t.Error("the former input is still there")
			}
		})
	}
}

func TestSwapHostile(t *testing.T) {
	ctx := context.Background()
	change := map[string]struct {
		make func(t *testing.T, data string)
		want string // of the error; empty: none
		data []string
	}{
		"OutLink": {func(t *testing.T, data string) {
			must(t, os.RemoveAll(data+"/out"))
			must(t, os.Symlink(t.TempDir(), data+"/out"))
		}, "symbolic link", nil},
		"OutFile": {func(t *testing.T, data string) {
			must(t, os.RemoveAll(data+"/out"))
			must(t, os.WriteFile(data+"/out", nil, 0o644))
		}, "folder", nil},
		"OutGone": {func(t *testing.T, data string) { must(t, os.RemoveAll(data+"/out")) }, "", empty},
		"InLink": {func(t *testing.T, data string) {
			outside := t.TempDir()
			must(t, os.MkdirAll(outside+"/tables", 0o755))
			must(t, os.RemoveAll(data+"/in"))
			must(t, os.Symlink(outside, data+"/in"))
			t.Cleanup(func() {
				if _, err := os.Stat(outside + "/tables"); err != nil {
					t.Errorf("what the link leads to: %v", err)
				}
			})
		}, "", empty},
		"InGone": {func(t *testing.T, data string) { must(t, os.RemoveAll(data+"/in")) }, "", empty},
		"PartsAreFiles": {func(t *testing.T, data string) {
			for _, name := range []string{"tables", "files", "user"} {
				must(t, os.RemoveAll(data+"/out/"+name))
				must(t, os.WriteFile(data+"/out/"+name, nil, 0o644))
			}
		}, "", empty},
		"StateIsFolder": {func(t *testing.T, data string) { must(t, os.MkdirAll(data+"/out/state.json/x", 0o755)) }, "", empty},
	}
	for name, c := range change {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t, nil)
			c.make(t, f.Data())
			_, err := f.Swap(ctx, 0)
			if c.want != "" {
				if err == nil {
					t.Fatal("no error")
				}
				wantErr(t, err, caisson.ErrInvalid, component.UserFault, c.want)
				return
			}
			must(t, err)
			if diff := cmp.Diff(c.data, tree(t, f.Data())); diff != "" {
				t.Errorf("data (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDroppedBounded(t *testing.T) {
	f := newFolder(t, nil)
	files := map[string]string{}
	for i := range 150 {
		files[fmt.Sprintf("in/tables/%03d", i)] = ""
	}
	step(t, f, files)
	got, err := f.Swap(context.Background(), 0)
	must(t, err)
	if len(got.Tables) != 100 || got.More != 50 || !slices.IsSorted(got.Tables) {
		t.Errorf("%d names and %d more", len(got.Tables), got.More)
	}
}

func TestMend(t *testing.T) {
	ctx := context.Background()
	f := newFolder(t, nil)
	outside := hostFile(t)
	must(t, os.Chmod(outside, 0o400))
	step(t, f, map[string]string{"out/tables/d/x": "y", "out/files/f": "z"})
	out := filepath.Join(f.Data(), "out")
	must(t, os.Symlink(outside, out+"/files/link"))
	must(t, os.Chmod(out+"/tables/d/x", 0))
	must(t, os.Chmod(out+"/files/f", os.ModeSetuid|0o555))
	for _, dir := range []string{"/tables/d", "/tables", ""} {
		must(t, os.Chmod(out+dir, 0))
	}
	must(t, f.Mend(ctx, nil))
	for name, want := range map[string]os.FileMode{"": 0o700, "/tables": 0o700, "/tables/d": 0o700, "/tables/d/x": 0o600, "/files/f": 0o755} {
		if info, err := os.Lstat(out + name); err != nil || info.Mode()&^os.ModeDir != want {
			t.Errorf("out%s is %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if info, _ := os.Stat(outside); info.Mode().Perm() != 0o400 {
		t.Errorf("the host's file is %v: a link was followed", info.Mode())
	}
}

func TestMendOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	ctx := context.Background()
	owner := folderOwner(4001)
	f := newFolder(t, &folder.Options{Owner: owner})
	step(t, f, map[string]string{"out/tables/x": "", "out/tables/mine": ""})
	data := f.Data()
	must(t, os.Link(data+"/out/tables/mine", data+"/out/tables/twice"))
	must(t, os.Chown(data+"/out/tables/mine", 4002, 4002))
	must(t, os.Symlink("/etc/passwd", data+"/out/files/link"))
	// Another name of a file of the host that PutFile has made.
	source := hostFile(t)
	must(t, os.Chmod(source, 0o444))
	must(t, os.Link(source, data+"/in/tables/linked"))
	must(t, f.Mend(ctx, func(uid, _ int) bool { return uid == 4002 }))
	for _, name := range []string{"in", "out", "out/tables/x", "out/tables/mine", "out/files/link"} {
		if uid := ownerOf(t, filepath.Join(data, name)); uid != 4001 {
			t.Errorf("%s belongs to %d, want 4001", name, uid)
		}
	}
	if uid := ownerOf(t, source); uid != 0 {
		t.Errorf("the host's file belongs to %d: it was given away by its other name", uid)
	}
	if uid := ownerOf(t, "/etc/passwd"); uid != 0 {
		t.Errorf("a link was followed: %d", uid)
	}
	if info, _ := os.Stat(source); info.Mode().Perm() != 0o444 {
		t.Errorf("the host's file is %v", info.Mode())
	}
}

func TestPutFile(t *testing.T) {
	ctx := context.Background()
	put := func(t *testing.T, f *folder.Folder, ways folder.Ways) (folder.How, string) {
		t.Helper()
		source := filepath.Join(t.TempDir(), "source")
		must(t, os.WriteFile(source, []byte("rows"), 0o444))
		how, err := f.PutFile(ctx, folder.Tables, "t", source, ways)
		must(t, err)
		must(t, os.Remove(source))
		return how, source
	}
	in := func(f *folder.Folder) string { return filepath.Join(f.Data(), "in/tables/t") }

	t.Run("Copy", func(t *testing.T) {
		f := newFolder(t, nil)
		how, _ := put(t, f, folder.Ways{})
		if how != folder.Copied && how != folder.Cloned {
			t.Errorf("it was put by %s", how)
		}
		if got, _ := os.ReadFile(in(f)); string(got) != "rows" {
			t.Errorf("the table is %q", got)
		}
		must(t, os.WriteFile(in(f), []byte("the step's own"), 0o644))
	})
	t.Run("Bind", func(t *testing.T) {
		f := newFolder(t, nil)
		how, _ := put(t, f, folder.Ways{Bind: true})
		if how == folder.Cloned {
			t.Skip("this file system clones")
		}
		binds := f.Binds()
		if how != folder.Bound || len(binds) != 1 || binds[0].Target != "in/tables/t" {
			t.Fatalf("it was put by %s, binds %v", how, binds)
		}
		if got, err := os.ReadFile(binds[0].Source); string(got) != "rows" {
			t.Errorf("what is to be mounted is %q, %v", got, err)
		}
		again, err := folder.Open(filepath.Dir(f.Data()), nil)
		must(t, err)
		defer again.Close()
		if diff := cmp.Diff(binds, again.Binds()); diff != "" {
			t.Errorf("after another start (-want +got):\n%s", diff)
		}
		_, err = f.Swap(ctx, 0)
		must(t, err)
		if len(f.Binds()) != 0 {
			t.Errorf("after a swap: %v", f.Binds())
		}
		if _, err := os.Stat(binds[0].Source); err == nil {
			t.Error("the pin is left after a swap")
		}
	})
	t.Run("BindReplaced", func(t *testing.T) {
		f := newFolder(t, nil)
		put(t, f, folder.Ways{Bind: true})
		file, err := f.Create(folder.Tables, "t")
		must(t, err)
		defer file.Close()
		must(t, file.Commit(false))
		if len(f.Binds()) != 0 {
			t.Errorf("after the table was replaced: %v", f.Binds())
		}
	})
	t.Run("Link", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root has files that belong to somebody else")
		}
		f := newFolder(t, &folder.Options{Owner: folderOwner(4001)})
		how, _ := put(t, f, folder.Ways{Link: true})
		if how == folder.Cloned {
			t.Skip("this file system clones")
		}
		if how != folder.Linked || ownerOf(t, in(f)) != 0 {
			t.Errorf("it was put by %s", how)
		}
	})
	t.Run("LinkOwn", func(t *testing.T) {
		f := newFolder(t, nil)
		if how, _ := put(t, f, folder.Ways{Link: true}); how == folder.Linked {
			t.Error("a file was linked that the step can write to")
		}
	})
	t.Run("ErrName", func(t *testing.T) {
		f := newFolder(t, nil)
		_, err := f.PutFile(ctx, folder.Tables, "../x", "/etc/passwd", folder.Ways{})
		wantErr(t, err, caisson.ErrInvalid, component.UserFault, "name")
	})
	t.Run("ErrSource", func(t *testing.T) {
		f := newFolder(t, nil)
		if _, err := f.PutFile(ctx, folder.Tables, "x", "/nonexistent/x", folder.Ways{}); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("got %v, want %v", err, caisson.ErrNotFound)
		}
		if left := tree(t, filepath.Join(f.Data(), "in/tables")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestCreateSlice(t *testing.T) {
	f := newFolder(t, nil)
	for _, name := range []string{"1", "2"} {
		s, err := f.CreateSlice(folder.Files, "5_x", name)
		must(t, err)
		_, err = s.WriteString(name)
		must(t, err)
		must(t, s.Commit(false))
	}
	s, err := f.CreateSlice(folder.Files, "5_x", "3")
	must(t, err)
	must(t, s.Close()) // not committed
	want := []string{"5_x/", "5_x/1=1", "5_x/2=2"}
	if diff := cmp.Diff(want, tree(t, filepath.Join(f.Data(), "in/files"))); diff != "" {
		t.Errorf("in/files (-want +got):\n%s", diff)
	}
	for _, bad := range [][2]string{{"a", ".."}, {"a", "b/c"}, {"..", "a"}, {"a.manifest", "b"}} {
		if _, err := f.CreateSlice(folder.Files, bad[0], bad[1]); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("CreateSlice(%q) = %v", bad, err)
		}
	}
}

func TestPutManifest(t *testing.T) {
	f := newFolder(t, nil)
	must(t, f.PutManifest(folder.Files, "1_a", &component.InFileManifest{ID: 1, Name: "a/é", Tags: []string{"t"}}))
	text, err := os.ReadFile(filepath.Join(f.Data(), "in/files/1_a.manifest"))
	must(t, err)
	if got := string(text); !strings.HasPrefix(got, "{\n    \"id\": 1,\n") || !strings.Contains(got, `"name": "a\/\u00e9",`) {
		t.Errorf("manifest is %s", got)
	}
	if err := f.PutManifest(folder.Files, "../a", 1); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("got %v, want %v", err, caisson.ErrInvalid)
	}
}

func TestMendErr(t *testing.T) {
	f := newFolder(t, nil)
	w := filepath.Dir(f.Data())
	closed, err := folder.Open(w, nil)
	must(t, err)
	must(t, closed.Close())
	err = closed.Mend(context.Background(), nil)
	if err == nil || component.FaultOf(err) != component.ApplicationFault || !strings.Contains(err.Error(), "permissions could not be normalised") {
		t.Errorf("Mend = %v, want the application's error", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Mend(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Mend = %v, want %v", err, context.Canceled)
	}
}
