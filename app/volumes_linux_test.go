package app_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/mount/volume"
)

// A station is an engine that the volume of TestVolumesAlike comes through.
type station struct {
	name, engine, runtime string
	user                  string
	image, module         string
}

// TestVolumesAlike fills one volume and gives it to every engine in turn, as
// several users. Each reads what was filled in and what those before it wrote,
// and is ended in another way while it has the volume.
func TestVolumesAlike(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's volumes belong to that user")
	}
	const name = "caisson-test/volumes:1"
	archive := busyboxArchive(t, name)
	cfg, local := load(t), "docker-archive:"+archive
	cfg.Engine.Docker.Host = daemon(t, archive)
	v := &voyage{T: t, store: volume.NewStore(filepath.Join(cfg.State, "volumes"))}
	stations := []station{
		{name: "native", engine: "native"},
		{name: "builtin", engine: "oci", runtime: "builtin", image: local, user: "2000:2000"},
		{name: "docker", engine: "docker", image: name, user: "3000:3000"},
		{name: "crun", engine: "oci", runtime: "crun", image: local},
		{name: "wasm", engine: "wasm", module: inside(t)},
		{name: "runc", engine: "oci", runtime: "runc", image: local, user: "2000:2000"},
		{name: "runsc", engine: "oci", runtime: "runsc", image: local},
		{name: "native-user", engine: "native", user: "4000:4000"},
	}
	if err := v.store.Create(t.Context(), "cargo", &volume.CreateOptions{Tar: cargo(t)}); err != nil {
		t.Fatal(err)
	}
	for i, s := range stations {
		if s.runtime != "" {
			cfg.Engine.OCI.Runtime = s.runtime
		}
		a, err := app.New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		v.app = a
		v.visit(i, &s)
		if err := v.app.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	v.arrive()
}

// inside builds the inside program as a module.
func inside(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inside.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "github.com/caissonrun/caisson/engine/enginetest/inside")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// cargo is what the volume is filled with.
func cargo(t *testing.T) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "deep/below/f", Typeflag: tar.TypeReg, Mode: 0o600, Uname: "filled"},
		{Name: "empty/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "log", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: "ünï code", Typeflag: tar.TypeSymlink, Linkname: "deep/below/f"},
		{Name: "absolute", Typeflag: tar.TypeSymlink, Linkname: "/cargo/deep/below/f"},
	} {
		text := h.Uname
		h.Size, h.Uname = int64(len(text)), ""
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// A voyage is the volume's way.
type voyage struct {
	*testing.T
	store   *volume.Store
	app     *app.App
	written []string
}

// task returns a task with the volume at /cargo.
func (v *voyage) task(s *station, readonly bool, script string, args ...string) *caisson.Task {
	task := &caisson.Task{
		Engine: s.engine, Program: caisson.Program{Run: script, Image: s.image, User: s.user},
		Mounts: []caisson.Mount{{Type: "volume", Source: "cargo", Target: "/cargo", ReadOnly: readonly}},
	}
	if s.module != "" {
		task.Module, task.Program = s.module, caisson.Program{Cmd: args}
	}
	return task
}

// visit reads the volume, by two at once, and writes to it.
func (v *voyage) visit(i int, s *station) {
	v.Helper()
	read := `cat /cargo/log "/cargo/ünï code" ; echo ; ! echo x 2>/dev/null >/cargo/deep/below/f ; echo ready ; sleep 1000`
	readers := []string{}
	for range 2 {
		readers = append(readers, v.begin(v.task(s, true, read, words("read /cargo/log ; read 'ünï ; say ; try write /cargo/log x ; say ready ; hold")...)))
	}
	want := strings.Join(v.written, "") + "filled\n"
	for _, id := range readers {
		got := v.says(id, "ready\n")
		if !strings.HasPrefix(got, want) {
			v.Errorf("%s: a reader sees %q, want %q", s.name, got, want)
		}
	}
	v.refused(v.task(s, false, "true", "exit", "0"), s)
	v.end(readers[0], engine.Stop{Reason: caisson.ReasonKilled})
	v.refused(v.task(s, false, "true", "exit", "0"), s)
	v.end(readers[1], engine.Stop{Reason: caisson.ReasonAborted})

	line := s.name + "\n"
	write := fmt.Sprintf("echo %s >>/cargo/log ; mkdir /cargo/empty/%[1]s ; echo ready ; sleep 1000", s.name)
	id := v.begin(v.task(s, false, write, "append", "/cargo/log", line, ";", "mkdir", "/cargo/empty/"+s.name, ";", "say", "ready", ";", "hold"))
	v.says(id, "ready\n")
	v.refused(v.task(s, true, "true", "exit", "0"), s)
	v.written = append(v.written, line)
	reasons := []caisson.Reason{caisson.ReasonKilled, caisson.ReasonAborted, caisson.ReasonStopped}
	v.end(id, engine.Stop{Reason: reasons[i%len(reasons)]})
}

// words makes arguments of a line; 'ünï is the name of the link.
func words(line string) []string {
	args := strings.Fields(line)
	for i, arg := range args {
		if arg == "'ünï" {
			args[i] = "/cargo/ünï code"
		}
	}
	return args
}

// begin starts a task.
func (v *voyage) begin(task *caisson.Task) string {
	v.Helper()
	id, err := v.app.Executor.Submit(v.Context(), task, &executor.Submission{BaseDir: v.TempDir(), Trusted: true})
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() { _ = v.app.Executor.Remove(v.Context(), id, true) })
	done := make(chan error, 1)
	go func() { done <- v.app.Executor.Attend(v.Context(), id, false) }()
	v.Cleanup(func() {
		if err := <-done; err != nil {
			v.Logf("attend: %v", err)
		}
	})
	return id
}

// says returns a task's output up to the end of a text.
func (v *voyage) says(id, end string) string {
	v.Helper()
	var out strings.Builder
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out.Reset()
		err := v.app.Executor.Logs(v.Context(), id, executor.LogOptions{}, func(r executor.LogRecord) error {
			out.Write(r.Data)
			return nil
		})
		if text, _, found := strings.Cut(out.String(), end); err == nil && found {
			return text
		}
	}
	v.Fatalf("the task never says %q, only %q", end, out.String())
	return ""
}

// refused checks that the volume is not to be had.
func (v *voyage) refused(task *caisson.Task, s *station) {
	v.Helper()
	id := v.begin(task)
	result, err := v.app.Executor.Wait(v.Context(), id)
	if err != nil || result.Success || result.Error == nil || !strings.Contains(result.Error.Message, "cargo") {
		v.Errorf("%s: a task that can't have the volume ends with %+v, %v, want an error that names it", s.name, result, err)
	}
}

// end ends a task, and removes it.
func (v *voyage) end(id string, stop engine.Stop) {
	v.Helper()
	if err := v.app.Executor.Stop(v.Context(), id, stop); err != nil {
		v.Errorf("Stop = %v", err)
	}
	if _, err := v.app.Executor.Wait(v.Context(), id); err != nil {
		v.Errorf("Wait = %v", err)
	}
	if err := v.app.Executor.Remove(v.Context(), id, true); err != nil {
		v.Errorf("Remove = %v", err)
	}
}

// arrive checks what the volume holds after all, and removes it.
func (v *voyage) arrive() {
	v.Helper()
	var buf bytes.Buffer
	if err := v.store.Export(v.Context(), "cargo", &buf); err != nil {
		v.Fatal(err)
	}
	var names []string
	r := tar.NewReader(&buf)
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		names = append(names, h.Name)
		data, err := io.ReadAll(r)
		if want := strings.Join(v.written, ""); h.Name == "log" && (err != nil || string(data) != want) {
			v.Errorf("the log holds %q, %v, want %q", data, err, want)
		}
	}
	for _, line := range v.written {
		if name := "empty/" + strings.TrimSpace(line) + "/"; !slices.Contains(names, name) {
			v.Errorf("the volume lacks %s", name)
		}
	}
	if err := v.store.Remove(v.Context(), "cargo"); err != nil {
		v.Errorf("Remove = %v", err)
	}
}
