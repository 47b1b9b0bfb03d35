//go:build unix

package git_test

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage/git"
)

func TestSubmodules(t *testing.T) {
	root := t.TempDir()
	leaf := newRepository(t, root+"/leaf")
	old := leaf.commit(map[string]string{"l": "old"})
	leaf.commit(map[string]string{"l": "new"})
	mid := newRepository(t, root+"/mid")
	mid.commit(map[string]string{"m": "mid"})
	mid.submodule("deep/leaf", "../../leaf/.git", old)
	server := serve(t, root, false)
	top := newRepository(t, root+"/top")
	top.commit(map[string]string{"t": "top", "libs/x": "x"})
	top.submodule("libs/mid", server.URL+"/mid/.git", mid.git("", "rev-parse", "HEAD"))

	s := newStager(t, &git.Options{AllowPrivate: true, AnyPath: true})
	modules := top.git("", "show", "HEAD:.gitmodules") + "\n"
	deep := mid.git("", "show", "HEAD:.gitmodules") + "\n"
	for _, from := range []string{"git+" + server.URL + "/top/.git", "git+file:" + top.dir} {
		for _, c := range []struct {
			git  caisson.GitInput
			want map[string]string
		}{
			{caisson.GitInput{}, map[string]string{"t": "top", "libs/x": "x", "libs/mid": "/", ".gitmodules": modules}},
			{caisson.GitInput{Submodules: true}, map[string]string{
				"t": "top", "libs/x": "x", ".gitmodules": modules,
				"libs/mid/m": "mid", "libs/mid/.gitmodules": deep, "libs/mid/deep/leaf/l": "old",
			}},
			{caisson.GitInput{Submodules: true, Folder: "libs"}, map[string]string{
				"x": "x", "mid/m": "mid", "mid/.gitmodules": deep, "mid/deep/leaf/l": "old",
			}},
		} {
			w := newWork(t)
			_, err := w.fetch(s, &caisson.Input{From: from, Git: &c.git})
			if got := w.tree("in"); err != nil || !maps.Equal(got, c.want) {
				t.Errorf("%s %+v: %q, %v, want %q", from, c.git, got, err, c.want)
			}
		}
	}

	// Their sizes count.
	w := newWork(t)
	_, err := w.fetch(s, &caisson.Input{From: "git+file:" + top.dir, Git: &caisson.GitInput{Submodules: true}, MaxSize: caisson.Bytes(len(modules) + len(deep) + 6)})
	refused(t, err, caisson.ErrInvalid, "max_size", "libs/mid")
	if got := w.tree("."); len(got) != 1 {
		t.Errorf("left %v", got)
	}
}

func TestSubmodulesRefused(t *testing.T) {
	dir := t.TempDir()
	marker := dir + "/marker"
	hash := newRepository(t, dir+"/secret").commit(map[string]string{"f": "SECRET"})
	for _, c := range []struct {
		path, url string
		kind      caisson.Kind
	}{
		{"s", dir + "/secret", caisson.ErrDenied},
		{"s", "file://" + dir + "/secret", caisson.ErrDenied},
		{"s", "../secret", caisson.ErrDenied},
		{"s", "../../../../../../../../../..", caisson.ErrInvalid},
		{"s", "ssh://git@localhost/x", caisson.ErrDenied},
		{"s", "git@localhost:x", caisson.ErrDenied},
		{"s", "http://127.0.0.1:1/x", caisson.ErrDenied},
		{"s", "https://localhost:1/x", caisson.ErrDenied},
		{"s", "ext::sh -c touch% " + marker, caisson.ErrInvalid},
		{"s", "--upload-pack=touch " + marker, caisson.ErrInvalid},
		{"s", "-u./x", caisson.ErrInvalid},
		{"s", "git://localhost/x", caisson.ErrInvalid},
		{"s", "ssh://-oProxyCommand=touch " + marker + "/x", caisson.ErrInvalid},
		{"s", "-oProxyCommand=x:y", caisson.ErrInvalid},
		{"s", "", caisson.ErrInvalid},
		{"s\r", "../x", caisson.ErrInvalid},
	} {
		w := newWork(t)
		r := newRepository(t, w.env.BaseDir+"/repo")
		r.commit(map[string]string{"f": "x"})
		r.submodule("s", c.url, hash)
		if c.path != "s" {
			must(t, os.WriteFile(r.dir+"/.gitmodules", []byte("[submodule \"s\"]\n\tpath = \"s\r\"\n\turl = ../x\n"), 0o644))
			r.git("", "add", ".gitmodules")
			r.git("", "commit", "--quiet", "--message=odd")
		}
		w.env.Trusted = true
		// What a task may name, a repository may not all the same.
		s := newStager(t, &git.Options{Allow: []string{dir}})
		_, err := w.fetch(s, &caisson.Input{From: "git+file:repo", Git: &caisson.GitInput{Submodules: true}})
		if caisson.KindOf(err) != c.kind || !strings.Contains(err.Error(), `"s"`) && !strings.Contains(err.Error(), "fsck") {
			t.Errorf("submodule at %q: %v, want kind %v", c.url, err, c.kind)
		}
		if got := w.tree("in"); len(got) != 0 {
			t.Errorf("submodule at %q: left %v", c.url, got)
		}
	}
	if _, err := os.Lstat(marker); err == nil {
		t.Error("a submodule's URL has run something")
	}
}

// A repository that is its own submodule ends.
func TestSubmodulesWithoutEnd(t *testing.T) {
	root := t.TempDir()
	r := newRepository(t, root+"/r")
	hash := r.commit(map[string]string{"f": "x"})
	for range 9 {
		r.submodule("s", "../.git", hash)
		hash = r.git("", "rev-parse", "HEAD")
	}
	s := newStager(t, &git.Options{AnyPath: true})
	_, err := newWork(t).fetch(s, &caisson.Input{From: "git+file:" + r.dir + "/.git", Git: &caisson.GitInput{Submodules: true}})
	refused(t, err, caisson.ErrInvalid, "levels")
}
