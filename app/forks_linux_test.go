package app_test

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/testimage"
)

// forkScript waits, and tells what it finds where it is started again.
const forkScript = `
[ -e mark ] && { echo "$(cat deep/below), $(stat -c %a:%u deep/below), $(readlink mark)"; exit 7; }
mkdir deep; echo as it was > deep/below; chmod 640 deep/below; ln -s deep/below mark
echo ready; sleep 1000`

// TestForksAlike holds that a copy by disk is the same in every engine that has
// those: a task of its own with the files that the original had, whose program
// starts again, while the original runs on.
func TestForksAlike(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user has no Docker daemon; the script fork has the others")
	}
	const name = "caisson-test/forks:1"
	archive := busyboxArchive(t, name)
	local := "docker-archive:" + archive
	for _, c := range []struct{ name, engine, runtime, image string }{
		{"native", "native", "builtin", ""},
		{"builtin", "oci", "builtin", local},
		{"crun", "oci", "crun", local},
		{"runsc", "oci", "runsc", local},
		{"docker", "docker", "builtin", name},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := load(t)
			cfg.Engine.OCI.Runtime = c.runtime
			if c.engine == "docker" {
				cfg.Engine.Docker.Host = daemon(t, archive)
			}
			a, err := app.New(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := a.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
			v := &voyage{T: t, app: a}
			v.fork(&caisson.Task{Engine: c.engine, Program: caisson.Program{Run: forkScript, Image: c.image, User: "1000"}})
		})
	}
}

// fork runs a task and two copies of it.
func (v *voyage) fork(task *caisson.Task) {
	v.Helper()
	id := v.begin(task)
	v.says(id, "ready\n")
	copies, err := v.app.Executor.Fork(v.Context(), id, 2)
	if err != nil || len(copies) != 2 {
		v.Fatalf("Fork = %q, %v, want two", copies, err)
	}
	for _, c := range copies {
		if err := v.app.Executor.Attend(v.Context(), c, false); err != nil {
			v.Errorf("Attend = %v", err)
		}
		result, err := v.app.Executor.Wait(v.Context(), c)
		if err != nil || result.Exit.Code != 7 {
			v.Errorf("a copy ends with %+v, %v, want that its program has found the original's files", result, err)
		}
		if got := v.says(c, "\n"); got != "as it was, 640:1000, deep/below" {
			v.Errorf("a copy finds %q", got)
		}
		if err := v.app.Executor.Remove(v.Context(), c, false); err != nil {
			v.Errorf("Remove = %v", err)
		}
	}
	if info, err := v.app.Executor.Inspect(v.Context(), id); err != nil || info.Result != nil {
		v.Errorf("Inspect = %+v, %v, want that the original runs on", info, err)
	}
	v.end(id, engine.Stop{Reason: caisson.ReasonKilled})
}

// busyboxArchive writes an image with this host's busybox, and returns its file.
func busyboxArchive(t *testing.T, name string) string {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	img, err := testimage.Busybox(v1.Config{})
	if err == nil {
		err = testimage.WriteArchive(img, archive, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return archive
}
