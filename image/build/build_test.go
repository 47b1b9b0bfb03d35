//go:build unix

package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/build"
	"github.com/caissonrun/caisson/image/imagetest"
)

// write makes files of a folder, by name.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func openStore(t *testing.T) *image.Store {
	t.Helper()
	s, err := image.Open(&image.Options{Dir: filepath.Join(t.TempDir(), "images")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read returns a file of an image.
func read(t *testing.T, s *image.Store, img *image.Image, name string) string {
	t.Helper()
	root, err := s.RootFS(t.Context(), img, &image.Lease{Owner: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root.Path, name))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// TestDocker builds with a real daemon, see scripts/services.
func TestDocker(t *testing.T) {
	host := os.Getenv("CAISSON_TEST_DOCKER")
	switch {
	case host == "" && os.Geteuid() == 0:
		t.Fatal("CAISSON_TEST_DOCKER is not set: scripts/services run starts a daemon for tests")
	case host == "":
		t.Skip("CAISSON_TEST_DOCKER names no daemon, and this is an ordinary user")
	}
	env := append(os.Environ(), "DOCKER_HOST="+host)
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"Dockerfile":    "FROM scratch AS base\nARG WHO=nobody\nENV WHO=$WHO\nCOPY hello /data/\nCMD [\"/hello\"]\nFROM base AS more\nCOPY . /all/\n",
		"hello":         "hello from the folder\n",
		"left/out":      "not sent",
		".dockerignore": "left\n",
		"bad.docker":    "FROM scratch\nCOPY absent /\n",
	})
	s := openStore(t)
	t.Run("Folder", func(t *testing.T) {
		var said bytes.Buffer
		img, names, err := build.Run(t.Context(), s, &build.Options{
			Source: dir, Tags: []string{"built:1"}, Args: map[string]string{"WHO": "me"}, Target: "base",
			Builder: build.Docker, Environ: env, Output: &said,
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(names, []string{"docker.io/library/built:1"}) || !slices.Contains(img.Config.Env, "WHO=me") || !slices.Equal(img.Config.Cmd, []string{"/hello"}) {
			t.Errorf("built %q with %+v", names, img.Config)
		}
		if got := read(t, s, img, "data/hello"); got != "hello from the folder\n" {
			t.Errorf("hello is %q", got)
		}
		if !strings.Contains(said.String(), "COPY hello") {
			t.Errorf("the builder said %q", said.String())
		}
		if _, _, err := s.Inspect(t.Context(), "built:1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("Dockerfile", func(t *testing.T) {
		img, names, err := build.Run(t.Context(), s, &build.Options{Source: filepath.Join(dir, "Dockerfile"), Builder: build.Docker, Environ: env})
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		if got := read(t, s, img, "all/hello"); got != "hello from the folder\n" {
			t.Errorf("hello is %q", got)
		}
		if _, err := os.Stat(filepath.Join(dir, "all/left")); err == nil {
			t.Error("what .dockerignore names was sent")
		}
	})
	t.Run("ErrBuild", func(t *testing.T) {
		_, _, err := build.Run(t.Context(), s, &build.Options{Source: dir, File: "bad.docker", Builder: build.Docker, Environ: env})
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "absent") {
			t.Errorf("a Dockerfile that can't be built: %v", err)
		}
	})
	t.Run("Git", func(t *testing.T) {
		repo := t.TempDir()
		write(t, repo, map[string]string{"sub/Dockerfile": "FROM scratch\nCOPY f /\n", "sub/f": "from git"})
		for _, args := range [][]string{{"init", "-q", "-b", "trunk"}, {"add", "."}, {"-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "x"}} {
			cmd := exec.Command("git", append([]string{"-C", repo}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("git: %v: %s", err, out)
			}
		}
		img, _, err := build.Run(t.Context(), s, &build.Options{Source: "file://" + repo + "#trunk:sub", Builder: build.Docker, Environ: env})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, img, "f"); got != "from git" {
			t.Errorf("f is %q", got)
		}
	})
}

// TestBuildKit builds with a program that stands for buildctl: it says what it
// was called with, and writes an archive.
func TestBuildKit(t *testing.T) {
	temp := t.TempDir()
	archive := filepath.Join(temp, "made.tar")
	imagetest.OCIArchive(t, archive, map[string]v1.Image{"latest": imagetest.Image(t, nil, imagetest.Layer(t, imagetest.File("f", "built")))})
	bin := filepath.Join(temp, "bin")
	write(t, bin, map[string]string{"buildctl": `#!/bin/sh
case $1 in debug) exit 0 ;; esac
echo "step one" >&2
for arg; do
	case $arg in
	--opt=build-arg:FAIL=*) echo "error: it does not build" >&2; exit 1 ;;
	--output=*) dest=${arg#*dest=} ;;
	esac
done
cp ` + archive + ` "$dest"
`})
	if err := os.Chmod(filepath.Join(bin, "buildctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	dir := filepath.Join(temp, "source")
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch\n"})
	s := openStore(t)
	var said bytes.Buffer
	img, _, err := build.Run(t.Context(), s, &build.Options{Source: dir, Tags: []string{"app"}, Output: &said})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, img, "f"); got != "built" || said.String() != "step one\n" {
		t.Errorf("f is %q, the builder said %q", got, said.String())
	}
	_, _, err = build.Run(t.Context(), s, &build.Options{Source: dir, Args: map[string]string{"FAIL": "1"}})
	if !errors.Is(err, caisson.ErrInvalid) || !strings.HasSuffix(err.Error(), "error: it does not build") {
		t.Errorf("a failed build: %v", err)
	}
}

func TestBuildKitArgv(t *testing.T) {
	got := build.Argv(&build.Options{
		File: "docker/Dockerfile.app", Args: map[string]string{"B": "2", "A": "1 x"}, Target: "last", Platform: "linux/arm64", NoCache: true,
	}, "/src", "/out/image.tar")
	want := []string{
		"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=/src", "--local=dockerfile=/src/docker",
		"--opt=filename=Dockerfile.app", "--output=type=oci,dest=/out/image.tar", "--opt=build-arg:A=1 x", "--opt=build-arg:B=2",
		"--opt=target=last", "--opt=platform=linux/arm64", "--no-cache",
	}
	if !slices.Equal(got, want) {
		t.Errorf("argv %q\nwant %q", got, want)
	}
}

// TestRefusals holds that what can't be built is told at once and in words.
func TestRefusals(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	nobody := []string{"DOCKER_HOST=unix:///nonexistent/docker.sock"}
	s := openStore(t)
	for name, c := range map[string]struct {
		opts build.Options
		kind caisson.Kind
		text string
	}{
		"NoBuilder":    {build.Options{Source: "."}, caisson.ErrUnsupported, "no builder is usable here"},
		"OtherBuilder": {build.Options{Source: ".", Builder: "magic"}, caisson.ErrInvalid, "no such builder"},
	} {
		c.opts.Environ = nobody
		_, _, err := build.Run(t.Context(), s, &c.opts)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want kind %v and %q", name, err, c.kind, c.text)
		}
	}
}

// TestBadSources holds what is refused before a builder sees it.
func TestBadSources(t *testing.T) {
	bin := t.TempDir()
	write(t, bin, map[string]string{"buildctl": "#!/bin/sh\nexit 0\n"})
	if err := os.Chmod(filepath.Join(bin, "buildctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	empty := t.TempDir()
	for source, kind := range map[string]caisson.Kind{
		"/no/such/folder":                     caisson.ErrNotFound,
		empty:                                 caisson.ErrNotFound,
		"ext::sh -c touch% /tmp/x://":         caisson.ErrInvalid,
		"--upload-pack=x://y":                 caisson.ErrInvalid,
		"https://example.com/x.git#--output":  caisson.ErrInvalid,
		"https://example.com/x.git#a:../../b": caisson.ErrInvalid,
	} {
		if _, _, err := build.Run(t.Context(), openStore(t), &build.Options{Source: source}); !errors.Is(err, kind) {
			t.Errorf("source %q: %v, want kind %v", source, err, kind)
		}
	}
	if _, _, err := build.Run(t.Context(), openStore(t), &build.Options{Source: empty, File: "../Dockerfile"}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a Dockerfile outside: %v", err)
	}
}

// TestPack holds what a daemon is sent of a folder.
func TestPack(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"Dockerfile": "", "a": "1", "node_modules/x/y": "", "keep/secret.key": "", "keep/public.key": "", "d/e.log": "", "d/e.txt": "",
		".dockerignore": "# comment\nnode_modules\n**/*.key\n!keep/public.key\n*/*.log\n/Dockerfile\n",
	})
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	rd, err := build.Pack(context.Background(), dir, "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	var got []string
	for tr := tar.NewReader(rd); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == "link" && (header.Typeflag != tar.TypeSymlink || header.Linkname != "/etc/passwd") {
			t.Errorf("the link is sent as %+v", header)
		}
		got = append(got, header.Name)
	}
	want := []string{".dockerignore", "Dockerfile", "a", "d/", "d/e.txt", "keep/", "keep/public.key", "link"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("sent: %q\nwant: %q", got, want)
	}
}
