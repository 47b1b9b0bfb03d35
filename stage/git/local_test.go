//go:build unix

package git_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage/git"
)

func TestAllowedFolders(t *testing.T) {
	dir := t.TempDir()
	newRepository(t, dir+"/ok/repo").commit(map[string]string{"f": "allowed"})
	newRepository(t, dir+"/okay/repo").commit(map[string]string{"f": "not allowed"})
	must(t, os.Symlink(dir+"/okay/repo", dir+"/ok/link"))
	s := newStager(t, &git.Options{Allow: []string{dir + "/ok"}})
	for from, kind := range map[string]caisson.Kind{
		"/ok/repo": 0, "/ok/repo/.git": 0, "/ok/absent": caisson.ErrNotFound, "/ok": caisson.ErrNotFound,
		"/okay/repo": caisson.ErrDenied, "/ok/link": caisson.ErrDenied, "/ok/../okay/repo": caisson.ErrDenied, "/absent": caisson.ErrDenied,
	} {
		w := newWork(t)
		in := &caisson.Input{From: "git+file:" + dir + from}
		_, err := w.fetch(s, in)
		if caisson.KindOf(err) != kind || (kind == 0) != (w.tree("in")["f"] == "allowed") {
			t.Errorf("%s: %v, %v, want kind %v", from, w.tree("in"), err, kind)
		}
		w.env.Trusted = true
		if _, err := w.fetch(s, in); from == "/ok/link" && err != nil {
			t.Errorf("%s of a trusted task: %v", from, err)
		}
	}
}

func TestRelativePath(t *testing.T) {
	w := newWork(t)
	newRepository(t, w.env.BaseDir+"/with%20 blank").commit(map[string]string{"f": "x"})
	w.env.Trusted = true
	_, err := w.fetch(newStager(t, nil), &caisson.Input{From: "git+file:./with%20 blank"})
	if got := w.tree("in"); err != nil || got["f"] != "x" {
		t.Errorf("%v, %v", got, err)
	}
}

// A repository that tasks may have made can lead nowhere outside of itself.
func TestListedRepositoryLeadsOut(t *testing.T) {
	for name, spoil := range map[string]func(dir, secret string) error{
		"git file": func(dir, secret string) error { return replace(dir+"/.git", "gitdir: "+secret+"/.git\n") },
		"alternates": func(dir, secret string) error {
			return replace(dir+"/.git/objects/info/alternates", secret+"/.git/objects\n")
		},
		"commondir":  func(dir, secret string) error { return replace(dir+"/.git/commondir", secret+"/.git\n") },
		"linked git": func(dir, secret string) error { return relink(dir+"/.git", secret+"/.git") },
		"objects":    func(dir, secret string) error { return relink(dir+"/.git/objects", secret+"/.git/objects") },
		"refs":       func(dir, secret string) error { return relink(dir+"/.git/refs", secret+"/.git/refs") },
		"one ref": func(dir, secret string) error {
			return relink(dir+"/.git/refs/heads/main", secret+"/.git/refs/heads/main")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			hash := newRepository(t, dir+"/secret").commit(map[string]string{"f": "SECRET"})
			newRepository(t, dir+"/ok/repo").commit(map[string]string{"f": "x"})
			must(t, spoil(dir+"/ok/repo", dir+"/secret"))
			s := newStager(t, &git.Options{Allow: []string{dir + "/ok"}})
			for _, ref := range []string{"", hash} {
				w := newWork(t)
				_, err := w.fetch(s, &caisson.Input{From: "git+file:" + dir + "/ok/repo", Git: &caisson.GitInput{Ref: ref}})
				refused(t, err, caisson.ErrDenied)
			}
		})
	}
}

// Also root can stage another user's repository, without being led by it.
func TestRepositoryOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	newRepository(t, dir+"/repo").commit(map[string]string{"f": "x"})
	for _, name := range []string{"/repo", "/repo/.git"} {
		must(t, os.Chown(dir+name, 1000, 1000))
	}
	s := newStager(t, nil)
	w := newWork(t)
	w.env.Trusted = true
	_, err := w.fetch(s, &caisson.Input{From: "git+file:" + dir + "/repo"})
	if got := w.tree("in"); err != nil || got["f"] != "x" {
		t.Errorf("%v, %v", got, err)
	}
	must(t, replace(dir+"/repo/.git/objects/info/alternates", dir+"/secret/.git/objects\n"))
	_, err = w.fetch(s, &caisson.Input{From: "git+file:" + dir + "/repo"})
	refused(t, err, caisson.ErrDenied, "clone")
}

// A repository of the caller's own may be spread over several folders.
func TestOwnRepositoryLeadsOut(t *testing.T) {
	dir := t.TempDir()
	r := newRepository(t, dir+"/main")
	r.commit(map[string]string{"f": "x"})
	r.git("", "worktree", "add", "--quiet", "-b", "side", dir+"/side")
	r.git("", "clone", "--quiet", "--shared", dir+"/main", dir+"/shared")
	for _, name := range []string{"/side", "/shared"} {
		w := newWork(t)
		w.env.Trusted = true
		_, err := w.fetch(newStager(t, nil), &caisson.Input{From: "git+file:" + dir + name})
		if got := w.tree("in"); err != nil || got["f"] != "x" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func replace(path, text string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func relink(path, target string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// Neither the served repository's configuration and hooks nor those of the user
// who runs Caisson start anything.
func TestNothingRuns(t *testing.T) {
	dir := t.TempDir()
	marker := dir + "/marker"
	script := dir + "/evil"
	must(t, os.WriteFile(script, []byte("#!/bin/sh\ntouch '"+marker+"'\nexec \"$@\"\n"), 0o755))
	hooks := []string{
		"post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "update", "pre-receive", "post-update", "fsmonitor-watchman",
	}
	hookFolder := func(path string) {
		must(t, os.MkdirAll(path, 0o755))
		for _, hook := range hooks {
			must(t, replace(path+"/"+hook, "#!/bin/sh\ntouch '"+marker+"'\n"))
			must(t, os.Chmod(path+"/"+hook, 0o755))
		}
	}

	r := newRepository(t, dir+"/repo")
	r.commit(map[string]string{"f": "x", ".gitattributes": "f filter=evil\n", ".git-hooks/post-checkout": "#!/bin/sh\ntouch " + marker + "\n"})
	hookFolder(r.dir + "/.git/hooks")
	for key, value := range map[string]string{
		"uploadpack.packObjectsHook": script, "core.fsmonitor": script, "core.sshCommand": script, "core.gitProxy": script,
		"filter.evil.smudge": script, "filter.evil.process": script, "core.alternateRefsCommand": script, "protocol.allow": "always",
		"core.hooksPath": r.dir + "/.git/hooks", "tar.tar.command": script, "credential.helper": "!" + script,
	} {
		r.git("", "config", key, value)
	}

	// The caller's own configuration.
	home := dir + "/home"
	hookFolder(home + "/template/hooks")
	must(t, replace(home+"/config", "[core]\n\thooksPath = "+home+"/template/hooks\n\tfsmonitor = "+script+"\n[init]\n\ttemplateDir = "+home+"/template\n"+
		"[uploadpack]\n\tpackObjectsHook = "+script+"\n[filter \"evil\"]\n\tsmudge = "+script+"\n[tar \"tar\"]\n\tcommand = "+script+"\n"))
	for key, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": home + "/config", "GIT_TEMPLATE_DIR": home + "/template", "GIT_CONFIG_COUNT": "1",
		"GIT_CONFIG_KEY_0": "uploadpack.packObjectsHook", "GIT_CONFIG_VALUE_0": script, "GIT_SSH_COMMAND": script, "GIT_EXTERNAL_DIFF": script,
		"GIT_TRACE": marker, "GIT_DIR": dir + "/nowhere", "GIT_EXEC_PATH": dir,
	} {
		t.Setenv(key, value)
	}
	for _, s := range []*git.Stager{newStager(t, &git.Options{AnyPath: true}), newStager(t, &git.Options{Allow: []string{dir}})} {
		w := newWork(t)
		_, err := w.fetch(s, &caisson.Input{From: "git+file:" + r.dir})
		if got := w.tree("in"); err != nil || got["f"] != "x" {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := os.Lstat(marker); err == nil {
			t.Error("something of the repository's, or of the caller's, was run")
			must(t, os.Remove(marker))
		}
	}
}

// Trees that git itself would never make are refused.
func TestHostileTrees(t *testing.T) {
	r := newRepository(t, t.TempDir())
	r.commit(map[string]string{"f": "x"})
	blob := r.git("x", "hash-object", "-w", "--stdin")
	link := r.git("/etc", "hash-object", "-w", "--stdin")
	sub := r.git("100644 blob "+blob+"\tpasswd\n", "mktree")
	raw := func(hash string) string {
		out := make([]byte, 0, 20)
		for i := 0; i < len(hash); i += 2 {
			out = append(out, unhex(hash[i])<<4|unhex(hash[i+1]))
		}
		return string(out)
	}
	for name, tree := range map[string]string{
		"git folder":      "40000 .git\x00" + raw(sub),
		"git in capitals": "40000 .GIT\x00" + raw(sub),
		"parent":          "40000 ..\x00" + raw(sub),
		"itself":          "40000 .\x00" + raw(sub),
		"slash":           "100644 a/b\x00" + raw(blob),
		"link and folder": "120000 a\x00" + raw(link) + "40000 a\x00" + raw(sub),
	} {
		t.Run(name, func(t *testing.T) {
			hash := r.git(tree, "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
			commit := r.git("", "commit-tree", "-m", "hostile", hash)
			r.git("", "update-ref", "refs/heads/hostile", commit)
			for _, opts := range []*git.Options{{AnyPath: true}, {Allow: []string{r.dir}}} {
				w := newWork(t)
				_, err := w.fetch(newStager(t, opts), &caisson.Input{From: "git+file:" + r.dir, Git: &caisson.GitInput{Ref: "hostile"}})
				refused(t, err, caisson.ErrInvalid)
				if got := w.tree("."); len(got) > 1 {
					t.Errorf("left %v", got)
				}
			}
		})
	}
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
