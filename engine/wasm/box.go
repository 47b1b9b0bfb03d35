//go:build unix

package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/server"
)

// Kind is the engine's keeper.Foreign.Kind, whose boxes OpenBox makes.
const Kind = Name

const (
	// maxModule bounds what is read of a module's file, in bytes.
	maxModule = 256 << 20
	// processors are what a keeper uses: one for the module, which does not give
	// it up by itself, and one to answer.
	processors = 2
)

// A boxSpec is what the keeper needs to make a module's sandbox.
type boxSpec struct {
	Module  string        `json:"module"` // absolute path
	Cache   string        `json:"cache"`
	Memory  caisson.Bytes `json:"memory,omitempty"` // zero: maxMemory
	Workdir string        `json:"workdir"`
	UID     int           `json:"uid"` // whose files the module's are
	GID     int           `json:"gid"`
	Mounts  []place       `json:"mounts"`
	Secrets []secretFile  `json:"secrets,omitempty"`
	// Patience is how long compiling may take.
	Patience caisson.Duration `json:"patience"`
	// Group is the control group that bounds the module's thread to CPUs. Empty:
	// nothing does.
	Group string       `json:"group,omitempty"`
	CPUs  caisson.CPUs `json:"cpus,omitempty"`
}

// A box is a module that is compiled, with what it will see, in the keeper.
type box struct {
	spec     *boxSpec
	mounts   []*mounted
	memory   *ceiling
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	cache    *compiling
	share    *share // of the processors; nil: it has no bound
	widen    func() // undoes confine
	// abandoned says that something is still compiling.
	abandoned bool

	mu     sync.Mutex
	run    *run // nil until it is started
	closed bool
	usage  syscall.Rusage // of this process when the module began
}

var _ server.Box = (*box)(nil)

// OpenBox reads and compiles a module. It is a server.Opener.
func OpenBox(data json.RawMessage, adopt bool) (_ server.Box, err error) {
	if adopt {
		return nil, unsupported("a module ends with its keeper")
	}
	spec := new(boxSpec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, err
	}
	if spec.Memory == 0 {
		spec.Memory = maxMemory
	}
	runtime.GOMAXPROCS(processors)
	b := &box{spec: spec, memory: &ceiling{limit: spec.Memory}, widen: func() {}}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if b.widen, err = confine(int64(spec.Memory)); err != nil {
		b.widen = func() {}
		return nil, err
	}
	if b.share, err = newShare(spec.Group, spec.CPUs); err != nil {
		return nil, err
	}
	if err := b.openPlaces(); err != nil {
		return nil, err
	}
	module, err := readModule(spec.Module)
	if err != nil {
		return nil, err
	}
	return b, b.compile(module)
}

// openPlaces opens all that the module will see, as the keeper's user.
func (b *box) openPlaces() error {
	for _, p := range b.spec.Mounts {
		if p.Make {
			if err := b.makePlace(p.Source); err != nil {
				return err
			}
		}
		m, err := openPlace(p)
		if err != nil {
			return err
		}
		b.mounts = append(b.mounts, m)
	}
	return nil
}

// makePlace makes a folder of the module's own. It goes with the sandbox's
// runtime folder.
func (b *box) makePlace(dir string) error {
	// A keeper that died over the module may have made it.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(dir, b.spec.UID, b.spec.GID)
}

// readModule reads a module's file.
//
// Errors: ErrInvalid if it is no module.
func readModule(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, invalid(errors.New("it is no file"))
	case info.Size() > maxModule:
		return nil, invalid(fmt.Errorf("%d bytes are more than %d", info.Size(), maxModule))
	}
	return io.ReadAll(io.LimitReader(f, maxModule))
}

// compile makes machine code of a module, or takes it from the cache.
//
// Errors: ErrInvalid if it is no module, or none that can run here.
func (b *box) compile(module []byte) error {
	if len(module) < 8 || string(module[:4]) != "\x00asm" {
		return invalid(errors.New("it is not WebAssembly"))
	}
	if module[6] != 0 {
		return invalid(errors.New("it is a component: this engine runs modules for WASI preview 1"))
	}
	pages, err := checkShape(module)
	if err != nil {
		return invalid(err)
	}
	if pages*pageSize > uint64(b.spec.Memory) {
		return &caisson.Error{
			Item: "limits.memory", Kind: caisson.ErrInvalid, Err: fmt.Errorf("the module begins with %d MiB of memory", pages*pageSize>>20),
		}
	}
	c, err := openCache(b.spec.Cache)
	if err != nil {
		return err
	}
	if b.cache, err = c.use(module); err != nil {
		return err
	}
	ctx := context.Background()
	b.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCompilationCache(b.cache.compiled).WithCloseOnContextDone(true))
	wasi, err := wasi_snapshot_preview1.NewBuilder(b.runtime).Compile(ctx)
	if err != nil {
		return err
	}
	if err := b.translate(ctx, module); err != nil {
		return err
	}
	if err := b.suits(wasi.ExportedFunctions()); err != nil {
		return err
	}
	if _, err := b.runtime.InstantiateModule(ctx, wasi, wazero.NewModuleConfig()); err != nil {
		return err
	}
	return b.cache.store()
}

// translate compiles a module, for as long as that may take. It can't be
// interrupted: a keeper whose box is not made ends, and what is under way with it.
func (b *box) translate(ctx context.Context, module []byte) error {
	type result struct {
		compiled wazero.CompiledModule
		err      error
	}
	done := make(chan result, 1)
	go func() {
		compiled, err := b.runtime.CompileModule(ctx, module)
		done <- result{compiled, err}
	}()
	timer := time.NewTimer(b.spec.Patience.Std())
	defer timer.Stop()
	select {
	case r := <-done:
		b.compiled = r.compiled
		if r.err != nil {
			return invalid(r.err)
		}
		return nil
	case <-timer.C:
		b.abandoned = true
		return invalid(fmt.Errorf("compiling it takes longer than %v", b.spec.Patience))
	}
}

// suits refuses a module that asks for what there is not.
func (b *box) suits(wasi map[string]api.FunctionDefinition) error {
	for _, f := range b.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != wasi_snapshot_preview1.ModuleName || wasi[name] == nil {
			return invalid(fmt.Errorf("it imports %q of %q, which nothing here exports: there is only %s",
				name, module, wasi_snapshot_preview1.ModuleName))
		}
	}
	if len(b.compiled.ImportedMemories()) > 0 {
		return invalid(errors.New("it imports its memory"))
	}
	if b.compiled.ExportedFunctions()["_start"] == nil {
		return invalid(errors.New("it has no function _start: it is a library and no command"))
	}
	return nil
}

// invalid says what is wrong with the module.
func invalid(err error) error {
	return &caisson.Error{Item: "module", Kind: caisson.ErrInvalid, Err: err}
}

func unsupported(why string) error {
	return &caisson.Error{Item: Name, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// Spawn implements server.Box: it starts the module, once.
func (b *box) Spawn(p *isolate.Program, _, stdout, stderr *os.File) (*isolate.Proc, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, &caisson.Error{Kind: caisson.ErrAborted, Err: errors.New("the sandbox is over")}
	case b.run != nil:
		return nil, unsupported("a module is alone in its sandbox")
	}
	files, err := b.files(p.Dir)
	if err != nil {
		return nil, &isolate.ExecError{Code: 126, Err: err}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &b.usage)
	r, proc, err := b.start(p, files, stdout, stderr)
	b.run = r
	return proc, err
}

// files is what the module sees. Its root is the folder in which relative paths
// begin, because WASI knows no other.
func (b *box) files(workdir string) (*tree, error) {
	all := newTree(b.mounts, b.spec.Secrets)
	if !slices.ContainsFunc(b.mounts, func(m *mounted) bool { return m.target == "" }) {
		m, rest, errno := all.find(workdir)
		if errno != 0 {
			return nil, fmt.Errorf("workdir %s: %w", workdir, errno)
		}
		root, err := m.root.OpenRoot(rest)
		if err != nil {
			return nil, fmt.Errorf("workdir %s: %w", workdir, err)
		}
		b.mounts = append(b.mounts, &mounted{root: root, readonly: m.readonly})
		all = newTree(b.mounts, b.spec.Secrets)
	}
	return all, nil
}

// Root implements server.Box.
func (b *box) Root() (*os.File, error) { return nil, unsupported("a module has no root folder") }

// Freeze implements server.Box.
func (b *box) Freeze(bool) error { return unsupported("a module can't be halted") }

// Kill implements server.Box.
func (b *box) Kill() error {
	b.mu.Lock()
	r := b.run
	b.mu.Unlock()
	if r != nil {
		r.stop(int(syscall.SIGKILL))
		<-r.done
	}
	return nil
}

// Stats implements server.Box.
func (b *box) Stats() (isolate.Stats, error) {
	s := isolate.Stats{CPU: -1, PIDs: -1, Throttled: -1}
	var now syscall.Rusage
	b.mu.Lock()
	started := b.run != nil
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &now); err == nil && started {
		s.CPU = cpu(&now) - cpu(&b.usage)
	}
	b.mu.Unlock()
	s.Memory, s.PeakMemory = caisson.Bytes(b.memory.used.Load()), caisson.Bytes(b.memory.peak.Load())
	if b.memory.denied.Load() {
		s.OOMKills = 1
	}
	return s, nil
}

// Close implements server.Box.
func (b *box) Close() error {
	_ = b.Kill()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	var err error
	if b.runtime != nil && !b.abandoned {
		err = b.runtime.Close(context.Background())
	}
	if b.cache != nil {
		if !b.abandoned {
			b.cache.close()
		}
		b.cache.drop()
	}
	for _, m := range b.mounts {
		err = errors.Join(err, m.root.Close())
	}
	err = errors.Join(err, b.share.close())
	b.widen()
	return err
}
