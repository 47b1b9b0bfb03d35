package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// rooted returns a session whose programs have a folder as their root, in which links
// lead everywhere, and the folder around it.
func rooted(t *testing.T) (s *session, around string) {
	t.Helper()
	around = t.TempDir()
	a := newAgent()
	a.root = filepath.Join(around, "root")
	for _, name := range []string{"root/etc", "outside"} {
		if err := os.MkdirAll(filepath.Join(around, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "../outside", "far": "../../../../../../../../../etc", "absolute": around + "/outside", "etc/hosts": "../../outside/hosts",
		"loop": "loop", "dangling": "../../new/folder", "etc/file": "/deep/er/file", "proc": "/outside",
	} {
		if err := os.Symlink(target, filepath.Join(a.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(a.once.Close)
	return &session{agent: a}, around
}

// TestInsideRoot holds that nothing of an image leads out of it.
func TestInsideRoot(t *testing.T) {
	s, around := rooted(t)
	for name, where := range map[string]string{
		"/up/a": "outside/a", "/far/b": "etc/b", "/absolute/c": around[1:] + "/outside/c", "/dangling/d": "new/folder/d",
		"/etc/hosts": "etc/hosts", "/new/e": "new/e",
	} {
		if err := s.writeFile(&wire.File{Path: wire.Name(name), Data: []byte(name)}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if data, err := os.ReadFile(filepath.Join(s.root, where)); string(data) != name {
			t.Errorf("%s is not at %s: %q, %v", name, where, data, err)
		}
	}
	for name, folder := range map[string]bool{"up/target": true, "etc/file": false, "dangling": true, "far/x/y": false} {
		at, err := openTarget(s.root, name, folder)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		real, err := os.Readlink(procPath(at))
		unix.Close(at)
		if err != nil || !strings.HasPrefix(real, s.root+"/") {
			t.Errorf("%s leads to %q, %v", name, real, err)
		}
	}
	for _, f := range []*wire.File{{Path: wire.Name("/../../f")}, {Path: wire.Name("/loop/a")}, {Path: wire.Name("/etc")}, {Path: wire.Name("/loop"), Dir: true}} {
		if err := s.writeFile(f); err == nil {
			t.Errorf("%s was written", f.Path)
		}
	}
	if list, err := os.ReadDir(filepath.Join(around, "outside")); len(list) != 0 || err != nil {
		t.Errorf("outside are %v, %v", list, err)
	}
	// What the kernel's file systems are mounted on is a folder, and no link to one.
	if at, err := (&view{root: s.root}).folder("proc"); err == nil {
		unix.Close(at)
		t.Error("a link is taken for /proc")
	}
}

// TestWriteKinds makes what is no plain file.
func TestWriteKinds(t *testing.T) {
	s, _ := rooted(t)
	for _, f := range []*wire.File{
		{Path: wire.Name("/new/folder"), Dir: true, Mode: 0o1770},
		{Path: wire.Name("/new/folder"), Dir: true, Mode: 0o1777},
		{Path: wire.Name("/new/link"), Data: []byte("replaced"), Mode: 0o600},
		{Path: wire.Name("/new/link"), Link: wire.Name("/anywhere")},
		{Path: wire.Name("/new/once"), Data: []byte("once"), Once: true},
	} {
		if err := s.writeFile(f); err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
	}
	if info, err := os.Stat(s.root + "/new/folder"); err != nil || info.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("the folder is %v, %v", info, err)
	}
	if target, err := os.Readlink(s.root + "/new/link"); target != "/anywhere" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	f, err := os.Open(s.root + "/new/once")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); string(data) != "once" || err != nil {
		t.Errorf("read %q, %v", data, err)
	}
	if _, err := os.Open(s.root + "/new/once"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it can be read twice: %v", err)
	}
}

// TestHosts changes a system's names and leaves those that it has.
func TestHosts(t *testing.T) {
	s, around := rooted(t)
	if err := os.Remove(s.root + "/etc/hosts"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.root+"/etc/hosts", []byte("127.0.0.1 localhost"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second"} {
		if err := s.setHosts(&wire.Hosts{Hosts: []wire.Host{{IP: "1.2.3.4", Names: []string{name, "other"}}}}); err != nil {
			t.Fatal(err)
		}
	}
	const want = "127.0.0.1 localhost\n" + hostsBegin + "\n1.2.3.4\tsecond other\n" + hostsEnd + "\n"
	if data, err := os.ReadFile(s.root + "/etc/hosts"); string(data) != want {
		t.Errorf("the file is %q, %v", data, err)
	}
	for _, h := range []wire.Host{{IP: "x"}, {IP: "1.2.3.4", Names: []string{"a b"}}, {IP: "1.2.3.4", Names: []string{"a\nb"}}, {IP: "::1", Names: []string{""}}} {
		if err := s.setHosts(&wire.Hosts{Hosts: []wire.Host{h}}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if list, _ := os.ReadDir(around + "/outside"); len(list) != 0 {
		t.Errorf("outside are %v", list)
	}
}

// FuzzHosts holds that a system's own lines are left as they are.
func FuzzHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n"), "name")
	f.Add([]byte(hostsBegin+"\n"), "x\ny")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		block, err := hostLines([]wire.Host{{IP: "::1", Names: []string{name}}})
		if err != nil {
			return
		}
		once := append(withoutBlock(text), block...)
		again := append(withoutBlock(once), block...)
		if string(once) != string(again) {
			t.Errorf("%q becomes %q, and then %q", text, once, again)
		}
	})
}
