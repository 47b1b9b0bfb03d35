//go:build unix

package executor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
	"github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/file"
	web "github.com/caissonrun/caisson/stage/http"
)

// booting is engine mem that takes machines, and looks at what it is given.
type booting struct {
	engine.Engine
	got []engine.MachineImage
}

func (b *booting) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if spec.MachineImage == nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrInternal, Err: errors.New("no disk")}
	}
	for _, name := range []string{spec.MachineImage.Disk, spec.MachineImage.Changes} {
		if _, err := os.Stat(name); err != nil {
			return nil, err
		}
	}
	b.got = append(b.got, *spec.MachineImage)
	return b.Engine.Create(ctx, spec)
}

// machineRig is a rig whose engine boots machines, with a store of images and
// what fetches them.
type machineRig struct {
	*rig
	p      *process
	engine *booting
	store  *image.Store
	served map[string]int // how often a path was asked for
	url    string
	dir    string
	file   string // an archive of a machine
	sum    string
}

func newMachineRig(t *testing.T) *machineRig {
	m := &machineRig{rig: newRig(t), engine: &booting{}, served: map[string]int{}, dir: t.TempDir()}
	m.features = func(f *engine.Features) { f.Machine = true }
	m.programs = map[string]mem.Program{"boot": func(*mem.Proc) int { return 0 }}
	m.wrap = func(inner engine.Engine) engine.Engine {
		m.engine.Engine = inner
		return m.engine
	}
	var err error
	if m.store, err = image.Open(&image.Options{Dir: filepath.Join(t.TempDir(), "images")}); err != nil {
		t.Fatal(err)
	}
	m.images = m.store
	m.archive(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m.served[req.URL.Path]++
		http.ServeFile(w, req, m.file)
	}))
	t.Cleanup(srv.Close)
	m.url = srv.URL
	m.p = m.process()
	m.stagers(t, m.p.Executor, true)
	return m
}

// stagers has an executor fetch files and URLs.
func (m *machineRig) stagers(t *testing.T, x *Executor, private bool) {
	files, err := file.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := web.New(&web.Options{AllowPrivate: private})
	if err != nil {
		t.Fatal(err)
	}
	for scheme, s := range map[string]stage.Stager{"file": files, "http": pages, "https": pages} {
		x.stagers[scheme] = s
	}
}

// archive writes the image of a machine.
func (m *machineRig) archive(t *testing.T) {
	disk, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.Write(bytes.Repeat([]byte("boot"), 1024)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := machine.Pack(t.Context(), &out, disk, &machine.Machine{Version: 1, Memory: 256}); err != nil {
		t.Fatal(err)
	}
	m.file, m.sum = filepath.Join(m.dir, "vm.tar.zst"), fmt.Sprintf("%x", sha256.Sum256(out.Bytes()))
	if err := os.WriteFile(m.file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// try submits and runs a task that is the machine, by a submitter who is
// trusted.
func (m *machineRig) try(own caisson.Machine) (*caisson.Result, error) {
	task := &caisson.Task{Program: caisson.Program{Cmd: []string{"boot"}}, Machine: &own}
	id, err := m.p.Submit(m.t.Context(), task, &Submission{BaseDir: m.dir, Trusted: true})
	if err != nil {
		return nil, err
	}
	if err := m.p.Attend(m.t.Context(), id, false); err != nil {
		m.t.Fatal(err)
	}
	return m.result(id), nil
}

// TestMachineFrom holds where images of machines come from, that they are in the
// store, and that nothing of a task is left.
func TestMachineFrom(t *testing.T) {
	m := newMachineRig(t)
	data, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(m.dir, "layout")
	imagetest.Layout(t, layout, map[string]v1.Image{
		"vm": imagetest.Module(t, string(data), "application/vnd.caisson.machine.v1", "application/vnd.oci.empty.v1+json"),
	})
	user := strings.Replace(m.url, "http://", "http://me:hunter2@", 1)
	for name, own := range map[string]caisson.Machine{
		"File":      {Image: "./vm.tar.zst"},
		"Sum":       {Image: "file:" + m.file, SHA256: m.sum},
		"URL":       {Image: m.url + "/a", SHA256: m.sum},
		"Fragment":  {Image: m.url + "/b#sha256=" + m.sum},
		"Password":  {Image: user + "/c", SHA256: m.sum},
		"Reference": {Image: "oci:" + layout + ":vm", SHA256: m.sum},
	} {
		m.engine.got = nil
		for range 2 {
			result, err := m.try(own)
			if err != nil || !result.Success {
				t.Fatalf("%s: %v, result %+v with error %v", name, err, result, result.Error)
			}
		}
		if len(m.engine.got) != 2 || m.engine.got[0].Disk != m.engine.got[1].Disk || m.engine.got[0].Changes == m.engine.got[1].Changes {
			t.Fatalf("%s: the engine got %+v", name, m.engine.got)
		}
		got := m.engine.got[0]
		if got.Format != "raw" || got.Size != 4096 || !strings.HasSuffix(got.Layer, ".qcow2") || !strings.Contains(string(got.Machine), `"memory":256`) {
			t.Errorf("%s: the engine got %+v", name, got)
		}
		m.clean()
	}
	if m.served["/a"] != 1 || m.served["/b"] != 1 || m.served["/c"] != 2 {
		t.Errorf("the server was asked for %v, want once where the store has it, twice where there was a password", m.served)
	}
	list, err := m.store.List(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatalf("the store has %+v, %v", list, err)
	}
	for _, entry := range list {
		if entry.InUse || !entry.Unpacked || strings.Contains(entry.Name, "hunter2") {
			t.Errorf("the store has %+v, want it unpacked, and used by nobody", entry)
		}
	}
	if _, err := m.store.GC(t.Context(), image.GCOptions{All: true}); err != nil {
		t.Error(err)
	}
	if list, err := m.store.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("after its collection the store has %+v, %v", list, err)
	}
}

// TestMachineWrong holds that an image that can't be used is one clear line, that
// nothing is left, and that the next task runs.
func TestMachineWrong(t *testing.T) {
	m := newMachineRig(t)
	data, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, test := range map[string]struct {
		own  caisson.Machine
		want string
	}{
		"Truncated": {caisson.Machine{Image: put("cut", data[:len(data)/2])}, "damaged"},
		"Sum":       {caisson.Machine{Image: m.file, SHA256: strings.Repeat("0", 64)}, "sha256"},
		"URLSum":    {caisson.Machine{Image: m.url, SHA256: strings.Repeat("0", 64)}, "sha256"},
		"Empty":     {caisson.Machine{Image: put("empty", nil)}, "empty"},
		"Foreign":   {caisson.Machine{Image: put("vmdk", append([]byte("KDMV"), make([]byte, 4092)...))}, "VMware"},
	} {
		result, err := m.try(test.own)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if result.Success || result.Error == nil || !strings.Contains(result.Error.Message, test.want) ||
			!strings.Contains(result.Error.Message, "machine.image") || strings.Contains(result.Error.Message, "\n") {
			t.Errorf("%s: %+v: %v, want %q of machine.image", name, result, result.Error, test.want)
		}
		m.clean()
	}
	if list, err := m.store.List(t.Context()); err != nil || slices.ContainsFunc(list, func(e image.Record) bool { return e.Unpacked || e.InUse }) {
		t.Errorf("the store has %+v, %v, want nothing unpacked", list, err)
	}
	if result, err := m.try(caisson.Machine{Image: m.file}); err != nil || !result.Success {
		t.Errorf("the next task: %+v, %v", result, err)
	}
}

// TestCheckMachine holds what is refused before the task is accepted.
func TestCheckMachine(t *testing.T) {
	m := newMachineRig(t)
	m.stagers(t, m.p.Executor, false)
	for name, test := range map[string]struct {
		own     caisson.Machine
		image   string
		distant bool // not from the command line
		want    caisson.Kind
	}{
		"OK":        {own: caisson.Machine{Image: m.file}},
		"Nothing":   {own: caisson.Machine{Type: "q35"}, want: caisson.ErrInvalid},
		"OfImage":   {own: caisson.Machine{Type: "q35"}, image: "busybox"},
		"SumAlone":  {own: caisson.Machine{SHA256: m.sum}, image: "busybox", want: caisson.ErrInvalid},
		"Absent":    {own: caisson.Machine{Image: "./absent"}, want: caisson.ErrNotFound},
		"Foreign":   {own: caisson.Machine{Image: m.file}, distant: true, want: caisson.ErrDenied},
		"NoSum":     {own: caisson.Machine{Image: "https://example.com/a"}, want: caisson.ErrInvalid},
		"TwoSums":   {own: caisson.Machine{Image: "https://example.com/a#sha256=" + m.sum, SHA256: strings.Repeat("0", 64)}, want: caisson.ErrInvalid},
		"Loopback":  {own: caisson.Machine{Image: "http://127.0.0.1/a", SHA256: m.sum}, distant: true, want: caisson.ErrDenied},
		"Metadata":  {own: caisson.Machine{Image: "http://169.254.169.254/a", SHA256: m.sum}, distant: true, want: caisson.ErrDenied},
		"Reference": {own: caisson.Machine{Image: "oci://Not A Name"}, want: caisson.ErrInvalid},
	} {
		r := &record{Task: &caisson.Task{Program: caisson.Program{Image: test.image}, Machine: &test.own}, BaseDir: m.dir, Trusted: !test.distant}
		if err := m.p.checkMachine(r, nil); caisson.KindOf(err) != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	m.p.opts.Images = policies{}
	if err := m.p.checkMachine(&record{Task: &caisson.Task{Machine: &caisson.Machine{Image: m.file}}, Trusted: true}, nil); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("without a store: %v, want unsupported", err)
	}
}
