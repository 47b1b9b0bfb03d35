package executor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/testimage"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/keepertest"
)

// ociHost is an executor over engine oci with real images.
func ociHost(t *testing.T) (x *Executor, ref string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make networks that sandboxes share")
	}
	// Not t.TempDir, whose name is too long for sockets.
	dir, err := os.MkdirTemp("", "eo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	command := keeper.Command{os.Getenv(envKeeper)}
	if command[0] == "" {
		if command, err = keepertest.Build(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(dir, "busybox.tar")
	img, err := testimage.Busybox(v1.Config{})
	if err == nil {
		err = testimage.WriteArchive(img, archive, "example.com/busybox:test")
	}
	if err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(&image.Options{Dir: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(dir, "run")
	e, err := oci.New(&oci.Options{Use: oci.Builtin, Runtime: filepath.Join(runtime, "oci"), Keeper: command})
	if err != nil {
		t.Fatal(err)
	}
	x, err = New(&Options{State: filepath.Join(dir, "state"), Runtime: runtime, Engines: []engine.Engine{e}, Images: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.Close()
		e.Close()
		if left, _ := filepath.Glob(filepath.Join(runtime, "oci", "networks.d", "*", "*", "*")); len(left) > 0 {
			t.Errorf("networks are left: %q", left)
		}
	})
	return x, "docker-archive:" + archive
}

// TestSidecarOfImage runs a real web server beside the main program, which reaches
// it by its name without having a network.
func TestSidecarOfImage(t *testing.T) {
	x, ref := ociHost(t)
	get := func(name string) string {
		return `printf 'GET /page HTTP/1.0\r\n\r\n' | nc -w 5 ` + name + ` 8080 | tail -n 1`
	}
	task := &caisson.Task{
		Program: caisson.Program{Image: ref, Run: get("my-page") + "; grep -c my-page /etc/hosts; ls /sys/class/net"},
		Sidecars: []caisson.Step{{
			Name:    "My Page",
			Program: caisson.Program{Run: "mkdir www; sleep 0.3; echo hello >www/page; exec busybox httpd -f -p 8080 -h /work/www"},
			Probe:   &caisson.Probe{Port: 8080, HTTP: "/page", Interval: caisson.Duration(20e6)},
		}},
		Post: []caisson.Step{{Program: caisson.Program{Run: get("my-page") + "; echo post"}}},
	}
	id, err := x.Submit(t.Context(), task, &Submission{Trusted: true, BaseDir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Attend(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	result, err := x.Wait(t.Context(), id)
	if err != nil || !result.Success {
		t.Fatalf("result = %+v, error %v, %v", result, result.Error, err)
	}
	p := &process{Executor: x, rig: &rig{t: t}}
	log := p.log(id, LogOptions{})
	// Lines of one step may come in one piece.
	for _, want := range []string{"hello\n1\nlo\n", "post-0: post\n"} {
		if !strings.Contains(strings.ReplaceAll(log, "1/main: ", ""), want) {
			t.Errorf("log %q, want %q in it", log, want)
		}
	}
	if strings.Contains(log, "post-0: hello") || strings.Contains(log, "eth0") {
		t.Errorf("log: %q", log)
	}
}
