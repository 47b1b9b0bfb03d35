//go:build unix

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/crash"
	"github.com/caissonrun/caisson/internal/filecopy"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/safefs"
)

// Machines is an Images that images of virtual machines can be had from too.
// image.Store is one.
type Machines interface {
	// PermitModule applies the operator's policies to the URL of a file.
	PermitModule(req *image.Request) error
	GetMachine(ctx context.Context, req *image.Request) (*image.Image, error)
	// KeptMachine returns what KeepMachine was given under the same name and
	// digest, or ErrNotFound.
	KeptMachine(ctx context.Context, ref, sum string) (*image.Image, error)
	KeepMachine(ctx context.Context, ref, sum, file string) (*image.Image, error)
	Machine(ctx context.Context, img *image.Image, lease *image.Lease) (*image.Machine, error)
}

var _ Machines = (*image.Store)(nil)

const (
	// machineFile is where the image of a machine is put, below the attempt's
	// files, until it is in the store.
	machineFile = "machine.image"
	// maxMachine is how large the file of one may be. The store has limits of its
	// own.
	maxMachine = 32 * caisson.GiB
)

// A machined is the machine that the attempt's main program is. Its lease is
// durable here before it exists.
type machined struct {
	Lease string `json:"lease"` // the owner's name
	// Image is what the engine is told of it, nil until it is unpacked. It has no
	// folder for changes yet.
	Image *engine.MachineImage `json:"image,omitempty"`
}

// ownMachine reports whether the task boots a disk with a system of its own.
func ownMachine(task *caisson.Task) bool { return task.Machine != nil && task.Machine.Image != "" }

// parseMachine reads where a machine's image comes from. All but artifacts are
// inputs.
//
// Errors: ErrInvalid.
func parseMachine(m *caisson.Machine) (*moduleRef, error) {
	ref, err := parseFile("machine.image", m.Image, &caisson.Input{To: machineFile, MaxSize: maxMachine})
	if err != nil {
		return nil, err
	}
	if ref.path != "" {
		return &moduleRef{path: ref.path, input: &caisson.Input{From: "file:" + ref.path, To: machineFile, SHA256: m.SHA256, MaxSize: maxMachine}}, nil
	}
	switch in := ref.input; {
	case in == nil:
	case in.SHA256 != "" && m.SHA256 != "" && in.SHA256 != m.SHA256:
		return nil, invalid("machine.sha256", errors.New("the URL names another digest"))
	case in.SHA256 == "" && m.SHA256 == "":
		return nil, invalid("machine.image", errors.New("a URL needs the digest of what is there: add machine.sha256"))
	case in.SHA256 == "":
		in.SHA256 = m.SHA256
	}
	return ref, nil
}

// machines returns where images of machines are had from. Errors:
// ErrUnsupported.
func (x *Executor) machines() (Machines, error) {
	m, ok := x.opts.Images.(Machines)
	if !ok {
		return nil, &caisson.Error{
			Op: caisson.OpValidate, Item: "machine", Kind: caisson.ErrUnsupported, Err: errors.New("this program has no store of images"),
		}
	}
	return m, nil
}

// checkMachine refuses a machine that can't be had from where the task says, as
// far as that is known without asking anybody.
func (x *Executor) checkMachine(r *record, secrets map[string][]byte) error {
	switch {
	case r.Task.Machine == nil:
		return nil
	case !ownMachine(r.Task) && r.Task.Image == "":
		return invalid("machine", errors.New("there is no disk to boot: name one as machine.image, or an image"))
	case !ownMachine(r.Task) && r.Task.Machine.SHA256 != "":
		return invalid("machine.sha256", errors.New("there is no machine.image that it could be of"))
	case !ownMachine(r.Task):
		return nil
	}
	ref, err := parseMachine(r.Task.Machine)
	if err != nil {
		return err
	}
	if _, err := x.machines(); err != nil {
		return err
	}
	if ref.input == nil {
		_, err := image.ParseReference(ref.artifact)
		return ofMachine(err)
	}
	f, err := x.fetcher(ref.input)
	if err == nil {
		err = x.guard(caisson.OpStageIn, func() error { return f.CheckInput(ref.input, stageEnv(r, secrets)) })
	}
	return ofMachine(err)
}

// ofMachine says what an error is about, if there is one.
func ofMachine(err error) error {
	if err == nil {
		return nil
	}
	return at("machine.image", err)
}

// bringMachine has the image of the task's machine in the store, unpacked and
// leased.
func (a *attendant) bringMachine(ctx context.Context) error {
	if !ownMachine(a.record.Task) {
		return nil
	}
	ref, err := parseMachine(a.record.Task.Machine)
	if err != nil {
		return err
	}
	m, err := a.x.machines()
	if err != nil {
		return err
	}
	defer a.clock("pull")()
	a.places.Machine = &machined{Lease: a.lease("machine")}
	if err := a.places.write(a.attempt()); err != nil {
		return err
	}
	var got *image.Machine
	err = a.x.guard(caisson.OpPrepare, func() (err error) {
		got, err = a.unpackMachine(ctx, m, ref)
		return err
	})
	if err != nil {
		return ofMachine(err)
	}
	if a.places.Machine.Image, err = machineImage(got, a.record.Task.Machine.SHA256); err != nil {
		return ofMachine(err)
	}
	return a.places.write(a.attempt())
}

// unpackMachine gets, unpacks and leases the image of a machine. One that was
// collected in between is had again.
func (a *attendant) unpackMachine(ctx context.Context, m Machines, ref *moduleRef) (*image.Machine, error) {
	// Who looks for what nobody owns must not find a lease before its attempt.
	lock, err := lockfile.AcquireShared(ctx, a.x.folder.SweepLock())
	if err != nil {
		return nil, safefs.Sorted(caisson.OpPrepare, a.x.folder.SweepLock(), err)
	}
	defer lock.Release()
	for try := 0; ; try++ {
		img, err := a.findMachine(ctx, m, ref)
		if err != nil {
			return nil, err
		}
		crash.Point(crash.RootBefore)
		got, err := m.Machine(ctx, img, &image.Lease{Owner: a.places.Machine.Lease})
		crash.Point(crash.RootAfter)
		if !errors.Is(err, caisson.ErrNotFound) || try > 0 {
			return got, err
		}
	}
}

// machineImage is what the engine is told of an unpacked image, which must have
// the digest if the task names one.
func machineImage(got *image.Machine, sum string) (*engine.MachineImage, error) {
	if sum != "" && got.SHA256 != sum {
		return nil, &caisson.Error{
			Op: caisson.OpPrepare, Kind: caisson.ErrInvalid, Err: fmt.Errorf("its sha256 is %s, want %s", got.SHA256, sum),
		}
	}
	spec := &engine.MachineImage{Disk: filepath.Join(got.Dir, got.Files[0]), Format: got.Format, Size: got.Size}
	if len(got.Files) > 1 {
		// A layer is a qcow2, and what lies below it is raw.
		spec.Format, spec.Layer = "raw", filepath.Join(got.Dir, got.Files[1])
	}
	if got.Image.Machine == nil {
		return spec, nil
	}
	var err error
	spec.Machine, err = json.Marshal(got.Image.Machine)
	return spec, err
}

// findMachine returns the image of the task's machine in the store, and brings
// it there if need be.
func (a *attendant) findMachine(ctx context.Context, m Machines, ref *moduleRef) (*image.Image, error) {
	if ref.input == nil {
		options, err := a.imageOptions()
		if err != nil {
			return nil, err
		}
		return m.GetMachine(ctx, a.request(ref.artifact, &options))
	}
	if ref.path == "" {
		if err := m.PermitModule(&image.Request{Ref: ref.input.From}); err != nil {
			return nil, err
		}
	}
	f, err := a.x.fetcher(ref.input)
	if err != nil {
		return nil, err
	}
	// Only who may have the file may have what was kept of it.
	if err := f.CheckInput(ref.input, stageEnv(a.record, a.secrets)); err != nil {
		return nil, err
	}
	dir := a.attempt().Files()
	file := filepath.Join(dir, machineFile)
	name := a.machineName(ref, file)
	if ref.input.SHA256 != "" {
		img, err := m.KeptMachine(ctx, name, ref.input.SHA256)
		if !errors.Is(err, caisson.ErrNotFound) {
			return img, err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, safefs.Sorted(caisson.OpPrepare, dir, err)
	}
	if err := a.fetchTo(ctx, f, ref.input, dir); err != nil {
		return nil, err
	}
	defer os.Remove(file) // the store has it, or nobody wants it
	sum := ref.input.SHA256
	if sum == "" {
		if sum, err = sumOf(ctx, file); err != nil {
			return nil, err
		}
	}
	return m.KeepMachine(ctx, name, sum, file)
}

// machineName is what the image of a machine is kept under. One that was had
// with a password is found by this attempt alone.
func (a *attendant) machineName(ref *moduleRef, file string) string {
	switch {
	case ref.path == "" && ref.plain:
		return ref.input.From
	case ref.path == "":
		return file
	case filepath.IsAbs(ref.path) || a.record.BaseDir == "":
		return filepath.Clean(ref.path)
	}
	return filepath.Join(a.record.BaseDir, ref.path)
}

// sumOf returns the sha256 of a file, in hex.
func sumOf(ctx context.Context, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", safefs.Sorted(caisson.OpPrepare, file, err)
	}
	defer f.Close()
	got, err := filecopy.Sum(ctx, f, &filecopy.Options{Sum: true})
	return got.SHA256, safefs.Sorted(caisson.OpPrepare, file, err)
}

// giveMachine gives the main program's spec the disk that it boots.
func (a *attendant) giveMachine(st *step, folder string, s *engine.Spec) error {
	if st.kind != kindMain || !ownMachine(a.record.Task) {
		return nil
	}
	own := a.places.Machine
	if own == nil || own.Image == nil {
		return &caisson.Error{Op: caisson.OpCreate, Item: "machine.image", Kind: caisson.ErrNotFound, Err: errors.New("it was not fetched")}
	}
	img := *own.Image
	var err error
	if img.Changes, err = a.changes(folder); err != nil {
		return err
	}
	s.MachineImage = &img
	return nil
}
