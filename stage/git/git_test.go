//go:build unix

package git_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/git"
	"github.com/caissonrun/caisson/stage/stagetest"
)

func TestFetcherOfFolders(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New: func(t *testing.T) stage.Fetcher { return newStager(t, &git.Options{AnyPath: true}) },
		Input: func(t *testing.T, data string) caisson.Input {
			r := newRepository(t, t.TempDir())
			r.commit(map[string]string{"data": data})
			return caisson.Input{From: "git+file:" + r.dir}
		},
		Absent: func(t *testing.T) caisson.Input { return caisson.Input{From: "git+file:" + t.TempDir() + "/absent"} },
		Tree:   true,
	})
}

func TestFetcherOfWebServers(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New: func(t *testing.T) stage.Fetcher { return newStager(t, &git.Options{AllowPrivate: true}) },
		Input: func(t *testing.T, data string) caisson.Input {
			root := t.TempDir()
			newRepository(t, root+"/repo").commit(map[string]string{"data": data})
			return caisson.Input{From: "git+" + serve(t, root, false).URL + "/repo/.git"}
		},
		Absent: func(t *testing.T) caisson.Input {
			return caisson.Input{From: "git+" + serve(t, t.TempDir(), false).URL + "/absent"}
		},
		Tree: true,
	})
}

func TestRefs(t *testing.T) {
	root := t.TempDir()
	r := newRepository(t, root+"/r")
	first := r.commit(map[string]string{"f": "1"})
	r.git("", "tag", "--annotate", "--message=x", "v1")
	r.git("", "tag", "light")
	second := r.commit(map[string]string{"f": "2"})
	r.git("", "update-ref", "refs/pull/3/head", second)
	r.git("", "branch", "team/side")
	r.git("", "tag", "both")
	r.commit(map[string]string{"f": "3"})
	r.git("", "branch", "both")
	blob := r.git("blob", "hash-object", "-w", "--stdin")
	r.git("", "tag", "blob", blob)
	server := serve(t, root, false)
	s := newStager(t, &git.Options{AllowPrivate: true, AnyPath: true})
	for _, from := range []string{"git+file:" + r.dir, "git+" + server.URL + "/r/.git"} {
		for _, c := range []struct {
			ref, want string
			depth     int
		}{
			{"", "3", 0},
			{"HEAD", "3", 0},
			{"main", "3", -1},
			{"main", "3", 2},
			{"team/side", "2", 0},
			{"refs/heads/team/side", "2", 0},
			{"heads/team/side", "2", 0},
			{"pull/3/head", "2", 0},
			{"v1", "1", 0},
			{"tags/v1", "1", 0},
			{"light", "1", -1},
			{"both", "3", 0}, // a branch comes first
			{first, "1", 0},
			{strings.ToUpper(first), "1", 1},
			{second, "2", -1},
			{first[:9], "1", -1},
		} {
			w := newWork(t)
			_, err := w.fetch(s, &caisson.Input{From: from, Git: &caisson.GitInput{Ref: c.ref, Depth: c.depth}})
			if got := w.tree("in"); err != nil || got["f"] != c.want || len(got) != 1 {
				t.Errorf("%s of %s, depth %d: %v, %v, want %s", c.ref, from, c.depth, got, err, c.want)
			}
		}
		for _, c := range []struct{ ref, word string }{
			{"absent", "absent"},
			{"refs/heads/absent", "absent"},
			{first[:9], "all of its hash"},
			{strings.Repeat("ab", 20), "abab"},
			{"blob", "blob"},
		} {
			w := newWork(t)
			_, err := w.fetch(s, &caisson.Input{From: from, Git: &caisson.GitInput{Ref: c.ref}})
			refused(t, err, caisson.ErrNotFound, c.word, `"in"`)
			if got := w.tree("."); len(got) != 1 {
				t.Errorf("%s: left %v", c.ref, got)
			}
		}
	}
}

func TestEmptyRepository(t *testing.T) {
	r := newRepository(t, t.TempDir())
	_, err := newWork(t).fetch(newStager(t, &git.Options{AnyPath: true}), &caisson.Input{From: "git+file:" + r.dir})
	refused(t, err, caisson.ErrNotFound, "empty")
}

func TestSHA256Repository(t *testing.T) {
	dir := t.TempDir()
	r := newRepository(t, dir, "--object-format=sha256")
	hash := r.commit(map[string]string{"f": "x"})
	for _, opts := range []*git.Options{{AnyPath: true}, {Allow: []string{dir}}} {
		for _, ref := range []string{"", hash} {
			w := newWork(t)
			_, err := w.fetch(newStager(t, opts), &caisson.Input{From: "git+file:" + dir, Git: &caisson.GitInput{Ref: ref}})
			if got := w.tree("in"); err != nil || got["f"] != "x" {
				t.Errorf("%+v, ref %q: %v, %v", opts, ref, got, err)
			}
		}
	}
}

// What lands is a checkout's files: attributes count, but not those for
// releases; links are kept, wherever they lead; there is no .git.
func TestTree(t *testing.T) {
	r := newRepository(t, t.TempDir())
	r.commit(map[string]string{
		"a b\n\"c\xff": "odd", "run.sh": "#!/bin/sh\n", "deep/er/f": "f", "deep/dos.bat": "a\nb\n", "ignored": "kept", "subst": "$Format:%H$",
		"abs": "-> /etc/passwd", "up": "-> ../../../outside", "folder": "-> deep/er", "dangling": "-> nowhere",
		".gitattributes": "*.bat text eol=crlf\nignored export-ignore\nsubst export-subst\nrun.sh filter=evil diff=evil\n",
	})
	w := newWork(t)
	in := &caisson.Input{From: "git+file:" + r.dir, To: "x/y"}
	got, err := w.fetch(newStager(t, &git.Options{AnyPath: true}), in)
	must(t, err)
	want := map[string]string{
		"a b\n\"c\xff": "odd", "run.sh": "#!/bin/sh\n", "deep/er/f": "f", "deep/dos.bat": "a\r\nb\r\n", "ignored": "kept", "subst": "$Format:%H$",
		"abs": "-> /etc/passwd", "up": "-> ../../../outside", "folder": "-> deep/er", "dangling": "-> nowhere",
		".gitattributes": "*.bat text eol=crlf\nignored export-ignore\nsubst export-subst\nrun.sh filter=evil diff=evil\n",
	}
	if tree := w.tree("x/y"); !maps.Equal(tree, want) {
		t.Errorf("tree %q, want %q", tree, want)
	}
	for name, perm := range map[string]os.FileMode{"run.sh": 0o755, "deep/er/f": 0o644, "deep": 0o755} {
		info, err := os.Stat(filepath.Join(w.dir, "x/y", name))
		must(t, err)
		if info.Mode().Perm() != perm || !info.IsDir() && info.ModTime().Unix() != 1600000000 {
			t.Errorf("%s: mode %v, time %v", name, info.Mode(), info.ModTime())
		}
	}
	if got.SHA256 != "" || got.Bind != "" {
		t.Errorf("Fetched = %+v", got)
	}
}

func TestFolder(t *testing.T) {
	r := newRepository(t, t.TempDir())
	r.commit(map[string]string{
		"top": "t", "a/f": "f", "a/b/g": "g", "ab/f": "other", "a*/f": "star", "file": "x", "link": "-> a",
		".gitattributes": "*.bat text eol=crlf\n", "a/x.bat": "1\n",
	})
	s := newStager(t, &git.Options{AnyPath: true})
	for folder, want := range map[string]map[string]string{
		"a":   {"f": "f", "b/g": "g", "x.bat": "1\r\n"},
		"a/":  {"f": "f", "b/g": "g", "x.bat": "1\r\n"},
		"a/b": {"g": "g"},
		"a*":  {"f": "star"},
	} {
		w := newWork(t)
		_, err := w.fetch(s, &caisson.Input{From: "git+file:" + r.dir, Git: &caisson.GitInput{Folder: folder}})
		if got := w.tree("in"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", folder, got, err, want)
		}
	}
	for folder, kind := range map[string]caisson.Kind{
		"absent": caisson.ErrNotFound, "file": caisson.ErrInvalid, "link": caisson.ErrInvalid, "link/b": caisson.ErrNotFound,
		"../a": caisson.ErrInvalid, "/a": caisson.ErrInvalid, "a//b": caisson.ErrInvalid, "./a": caisson.ErrInvalid, "a\x00": caisson.ErrInvalid,
	} {
		_, err := newWork(t).fetch(s, &caisson.Input{From: "git+file:" + r.dir, Git: &caisson.GitInput{Folder: folder}})
		refused(t, err, kind)
	}
}

// A tree may land over files that are there, also in the work folder itself.
func TestMerges(t *testing.T) {
	r := newRepository(t, t.TempDir())
	r.commit(map[string]string{"f": "new", "d/g": "new", "l": "-> x"})
	w := newWork(t)
	must(t, os.WriteFile(w.dir+"/f", []byte("old"), 0o644))
	must(t, os.WriteFile(w.dir+"/other", []byte("old"), 0o644))
	must(t, os.Symlink("other", w.dir+"/l"))
	s := newStager(t, &git.Options{AnyPath: true})
	in := &caisson.Input{From: "git+file:" + r.dir, To: "."}
	_, err := w.fetch(s, in)
	want := map[string]string{"f": "new", "d/g": "new", "l": "-> x", "other": "old"}
	if got := w.tree("."); err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	must(t, os.RemoveAll(w.dir+"/d"))
	must(t, os.Symlink("/", w.dir+"/d"))
	_, err = w.fetch(s, in)
	refused(t, err, caisson.ErrDenied, "links are not followed")
}

func TestURLs(t *testing.T) {
	s := newStager(t, &git.Options{AnyPath: true, AllowPrivate: true, AllowSSH: true})
	for _, from := range []string{
		"git+https://h/x", "GIT+HTTPS://h:8443/x.git", "git+https://user:pass@h/x", "git+http://h/~u/x", "git+http://[::1]:80/x",
		"git+ssh://git@h/x", "git+ssh://git@h:22/x", "git+https://h/with%20blank",
	} {
		if err := s.CheckInput(&caisson.Input{From: from, To: "a"}, &stage.Env{}); err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
	for _, from := range []string{
		"git+https:", "git+https://", "git+https:///x", "git+https://h", "git+https://h/", "git+https:x", "git+https://h/x?y", "git+https://h/x#v1",
		"git+https://-h/x", "git+https://h/a%0ab", "git+https://h%0a/x", "git+https://$(id)/x", "git+https://h:port/x", "git+https://SECRET:%zz@h/x",
		"git+http://user:SECRET@h/x", "git+ssh://user:SECRET@h/x", "git+ssh://-oProxyCommand=x/x", "git+ssh://-u@h/x", "git+ssh://git@-h/x",
		"git+ext::sh -c id", "git+ext://sh/x", "git+git://h/x", "git+ftp://h/x", "git+file:", "git+file://host/x", "git+file:a\x00b", "git+file:rel",
		"git+", "git", "file:x", "https://h/x", "git+ssh:git@h:x", "git+--upload-pack=x:y",
	} {
		err := s.CheckInput(&caisson.Input{From: from, To: "a"}, &stage.Env{})
		refused(t, err, caisson.ErrInvalid)
		if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error tells the password: %v", from, err)
		}
	}
}

func TestFields(t *testing.T) {
	s := newStager(t, nil)
	for name, change := range map[string]func(*caisson.Input){
		"text":   func(in *caisson.Input) { in.Text = "x" },
		"digest": func(in *caisson.Input) { in.SHA256 = strings.Repeat("ab", 32) },
		"mode":   func(in *caisson.Input) { in.Mode = "0644" },
		"depth":  func(in *caisson.Input) { in.Git = &caisson.GitInput{Depth: -2} },
	} {
		in := &caisson.Input{From: "git+https://h/x", To: "a"}
		change(in)
		if err := s.CheckInput(in, &stage.Env{}); caisson.KindOf(err) != caisson.ErrInvalid {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	for _, ref := range []string{
		"-x", "--upload-pack=x", "a..b", "a:b", "a b", "a\nb", "a^", "a~1", "@{-1}", "a*", "a[b", `a\b`, "a?", "/a", "a/", "a//b", ".a", "a/.b",
		"a.lock", "a.", "\x7f",
	} {
		in := &caisson.Input{From: "git+https://h/x", To: "a", Git: &caisson.GitInput{Ref: ref}}
		if err := s.CheckInput(in, &stage.Env{}); caisson.KindOf(err) != caisson.ErrInvalid {
			t.Errorf("ref %q: %v, want ErrInvalid", ref, err)
		}
	}
}

func TestNoGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := newStager(t, nil)
	in := &caisson.Input{From: "git+https://h/x", To: "a"}
	refused(t, s.CheckInput(in, &stage.Env{}), caisson.ErrUnsupported, "install")
	_, err := newWork(t).fetch(s, in)
	refused(t, err, caisson.ErrUnsupported, "install")
}
