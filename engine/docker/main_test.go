//go:build linux

package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson/engine/docker"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
	"github.com/caissonrun/caisson/keeper/server"
)

// hostVariable names the daemon that these tests run against, which nobody
// else needs: see scripts/services.
const hostVariable = "CAISSON_TEST_DOCKER"

// small is the small keeper, which is the first process of containers.
var small string

// TestMain lets this program be a keeper, as the main binary is one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{docker.Kind: docker.OpenBox}))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "docker-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command, err := keepertest.Build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	small = command[0]
	return m.Run()
}

// host returns the daemon's address. As root there must be one.
func host(t testing.TB) string {
	t.Helper()
	address := os.Getenv(hostVariable)
	switch {
	case os.Geteuid() != 0:
		t.Skip("the engine needs root")
	case address == "":
		t.Fatalf("%s is not set: scripts/services run starts a daemon for tests", hostVariable)
	}
	return address
}

// installation is another one for each run of these tests.
func installation() string { return fmt.Sprintf("test%d", os.Getpid()) }

// options are those of an engine of these tests.
func options(t testing.TB) docker.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return docker.Options{
		Host: host(t), Installation: installation(), Keeper: keeper.Command{self, keeper.Subcommand}, Init: small,
		Runtime: filepath.Join(dir, "run"), State: filepath.Join(dir, "state"),
	}
}

func newEngine(t testing.TB, opts docker.Options) *docker.Engine {
	t.Helper()
	e, err := docker.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// daemon is a client of the tests' own.
func daemon(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(
		client.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}), client.WithHost(host(t)), client.WithScheme("http"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// emptyImage makes an image that has folders and a shell, and returns its name.
func emptyImage(t testing.TB, changes ...string) string {
	t.Helper()
	return imageOf(t, withShell(t, nil), changes...)
}

// withShell adds busybox to files.
func withShell(t testing.TB, files map[string]string) map[string]string {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is needed: %v", err)
	}
	all := map[string]string{}
	for _, name := range []string{"sh", "id", "sleep", "grep"} {
		all["bin/"+name] = string(busybox)
	}
	maps.Copy(all, files)
	return all
}

// owner returns who a file belongs to.
func owner(info os.FileInfo) int {
	if info == nil {
		return -1
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// imageOf makes an image with files, and returns its name.
func imageOf(t testing.TB, files map[string]string, changes ...string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"etc/", "home/", "run/", "tmp/", "var/", "var/tmp/", "bin/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := daemon(t)
	name := fmt.Sprintf("caisson-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	r, err := c.ImageImport(t.Context(), client.ImageImportSource{Source: &archive, SourceName: "-"}, name,
		client.ImageImportOptions{Tag: "latest", Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() {
		_, err := c.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		if err != nil {
			t.Errorf("remove the test's image: %v", err)
		}
	})
	return name
}
