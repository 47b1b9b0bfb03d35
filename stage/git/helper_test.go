//go:build unix

package git_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/git"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newStager(t *testing.T, opts *git.Options) *git.Stager {
	t.Helper()
	s, err := git.New(opts)
	must(t, err)
	return s
}

// A repository is one that a test makes.
type repository struct {
	*testing.T
	dir string
}

// newRepository makes an empty repository in the folder dir.
func newRepository(t *testing.T, dir string, args ...string) *repository {
	t.Helper()
	r := &repository{t, dir}
	must(t, os.MkdirAll(dir, 0o755))
	r.git("", append([]string{"init", "--quiet", "--initial-branch=main"}, args...)...)
	r.git("", "config", "user.name", "tester")
	r.git("", "config", "user.email", "tester@example.com")
	return r
}

// git runs git in the repository and returns what it prints.
func (r *repository) git(stdin string, args ...string) string {
	r.Helper()
	cmd := exec.CommandContext(r.Context(), "git", args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_DATE=@1600000000 +0000", "GIT_COMMITTER_DATE=@1600000000 +0000",
	}
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.Fatalf("git %q: %v: %s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// commit writes files and commits them: "name" to contents. "-> target" as
// contents makes a link, "#!" a program.
func (r *repository) commit(files map[string]string) string {
	r.Helper()
	for name, data := range files {
		path := filepath.Join(r.dir, name)
		must(r.T, os.MkdirAll(filepath.Dir(path), 0o755))
		os.Remove(path)
		if target, ok := strings.CutPrefix(data, "-> "); ok {
			must(r.T, os.Symlink(target, path))
			continue
		}
		perm := fs.FileMode(0o644)
		if strings.HasPrefix(data, "#!") {
			perm = 0o755
		}
		must(r.T, os.WriteFile(path, []byte(data), perm))
	}
	r.git("", "add", "--all", "--force")
	r.git("", "commit", "--quiet", "--allow-empty", "--message=change")
	return r.git("", "rev-parse", "HEAD")
}

// submodule commits a link to a commit, and what .gitmodules says about it.
func (r *repository) submodule(path, url, hash string) {
	r.Helper()
	text := fmt.Sprintf("[submodule \"%s\"]\n\tpath = \"%s\"\n\turl = \"%s\"\n\tupdate = checkout\n", path, path, url)
	before, _ := os.ReadFile(filepath.Join(r.dir, ".gitmodules"))
	must(r.T, os.WriteFile(filepath.Join(r.dir, ".gitmodules"), append(before, text...), 0o644))
	r.git("", "add", ".gitmodules")
	r.git("", "update-index", "--add", "--cacheinfo", "160000,"+hash+","+path)
	r.git("", "commit", "--quiet", "--message=submodule")
}

// A served is a web server of the repositories below a folder.
type served struct {
	*httptest.Server
	// wrap, if it is set, gets each request first.
	wrap func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

// serve begins to serve root, over TLS if tls is set.
func serve(t *testing.T, root string, tls bool) *served {
	t.Helper()
	libexec, err := exec.Command("git", "--exec-path").Output()
	must(t, err)
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(libexec)), "git-http-backend"),
		Dir:  root,
		Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=" + root,
			"REMOTE_USER=",
		},
		Stderr: &bytes.Buffer{},
	}
	s := &served{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.wrap != nil {
			s.wrap(w, r, backend)
			return
		}
		backend.ServeHTTP(w, r)
	})
	s.Server = httptest.NewUnstartedServer(handler)
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// A work is a work folder.
type work struct {
	*testing.T
	dir string
	env *stage.Env
}

func newWork(t *testing.T) *work {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/work", 0o755))
	must(t, os.Mkdir(dir+"/tmp", 0o700))
	return &work{t, dir + "/work", &stage.Env{Temp: dir + "/tmp", UID: os.Getuid(), GID: os.Getgid(), BaseDir: dir}}
}

// fetch brings in an input and checks that nothing else is left.
func (w *work) fetch(s *git.Stager, in *caisson.Input) (*stage.Fetched, error) {
	w.Helper()
	root, err := os.OpenRoot(w.dir)
	must(w.T, err)
	defer root.Close()
	if in.To == "" {
		in.To = "in"
	}
	got, err := s.Fetch(w.Context(), in, root, w.env)
	if left, _ := os.ReadDir(w.env.Temp); len(left) != 0 {
		w.Errorf("left in the temporary folder: %v", left)
	}
	return got, err
}

// tree lists what an input became: files with their contents, "-> target",
// folders that are empty with "/".
func (w *work) tree(name string) map[string]string {
	w.Helper()
	got := map[string]string{}
	top := filepath.Join(w.dir, name)
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		switch {
		case e.IsDir():
			if list, _ := os.ReadDir(path); len(list) == 0 {
				got[rel] = "/"
			}
		case e.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(path)
			got[rel] = "-> " + target
		default:
			data, err := os.ReadFile(path)
			must(w.T, err)
			got[rel] = string(data)
		}
		return nil
	})
	must(w.T, err)
	return got
}

// refused checks an error's kind and that it tells certain words.
func refused(t *testing.T, err error, kind caisson.Kind, words ...string) {
	t.Helper()
	if caisson.KindOf(err) != kind {
		t.Fatalf("error %v, of kind %v, want %v", err, caisson.KindOf(err), kind)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not tell %q", err, word)
		}
	}
}
