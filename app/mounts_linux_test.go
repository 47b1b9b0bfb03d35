package app_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
)

func TestMain(m *testing.M) {
	app.Reexec() // sandboxes begin as copies of this program
	if err := buildKeeper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// buildKeeper puts a keeper beside this program, which is in a folder of go
// test's, if none was built before that is part of it.
func buildKeeper() error {
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := keeper.Program(dir); err == nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = keepertest.Build(filepath.Dir(self))
	return err
}

// mountScript tells what it sees of its mounts. Every engine must show the same.
const mountScript = `
echo "volume: $(stat -c %a /scratch), of $(stat -c %u:%g /scratch), has $(cat /scratch/before)"
echo "over what an image has: $(ls -A /home | wc -l)"
echo new > /home/file && echo "written there"
echo "bind: $(cat /data/kept)"
(echo x > /data/new) 2>/dev/null || echo "bind: can't be written"
echo "tmpfs: $(stat -c %a /fast), $(df -k /fast | tail -n 1 | awk '{print $2}') kB, $(ls -A /fast | wc -l) files"
echo x > /fast/x && echo "tmpfs: written"
echo "file: $(cat /one)"
`

const mountsSeen = `volume: 750, of 1000:1000, has before
over what an image has: 0
written there
bind: as it was
bind: can't be written
tmpfs: 1777, 16384 kB, 0 files
tmpfs: written
file: as it was
`

// TestMountsAlike holds that mounts and their options are the same in every
// engine, also for the steps beside the main one.
func TestMountsAlike(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's volumes belong to that user")
	}
	const name = "caisson-test/mounts:1"
	archive := busyboxArchive(t, name)
	for _, c := range []struct{ engine, image string }{
		{"native", ""}, {"oci", "docker-archive:" + archive}, {"docker", name},
	} {
		t.Run(c.engine, func(t *testing.T) {
			cfg := load(t)
			if c.engine == "docker" {
				cfg.Engine.Docker.Host = daemon(t, archive)
			}
			if got := runMounts(t, cfg, c.engine, c.image); got != mountsSeen {
				t.Errorf("the program sees\n%s\nwant\n%s", got, mountsSeen)
			}
		})
	}
}

// daemon returns the address of the tests' Docker daemon, with the image.
func daemon(t *testing.T, archive string) string {
	t.Helper()
	host := os.Getenv("CAISSON_TEST_DOCKER")
	if host == "" {
		t.Fatal("there is no Docker daemon; run the tests by make test or below scripts/services run")
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "-H", host, "load", "-i", archive).CombinedOutput(); err != nil {
		t.Fatalf("docker load: %v: %s", err, out)
	}
	return host
}

// runMounts runs the script with mounts of every type, and returns what it said.
func runMounts(t *testing.T, cfg *app.Config, engine, image string) string {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "kept"), []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The folders above are for this user only, and the task is another one.
	for dir := data; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, err := app.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	task := &caisson.Task{
		Engine:  engine,
		Program: caisson.Program{Run: mountScript, Image: image},
		Pre:     []caisson.Step{{Program: caisson.Program{Run: "printf before > /scratch/before"}}},
		Mounts: []caisson.Mount{
			{Type: "volume", Target: "/scratch", Opts: map[string]string{"mode": "750", "nocopy": "true"}},
			{Type: "volume", Target: "/home"},
			{Type: "bind", Source: data, Target: "/data", ReadOnly: true, Opts: map[string]string{"propagation": "private"}},
			{Type: "bind", Source: filepath.Join(data, "kept"), Target: "/one", ReadOnly: true},
			{Type: "tmpfs", Target: "/fast", Opts: map[string]string{"size": "16m", "mode": "1777"}},
		},
	}
	id, err := a.Executor.Submit(t.Context(), task, &executor.Submission{BaseDir: t.TempDir(), Trusted: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Executor.Remove(t.Context(), id, true)
	if err := a.Executor.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	result, err := a.Executor.Wait(t.Context(), id)
	if err != nil || !result.Success {
		t.Errorf("Wait = %+v, %v, want success", result, err)
	}
	var out strings.Builder
	err = a.Executor.Logs(t.Context(), id, executor.LogOptions{}, func(r executor.LogRecord) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
