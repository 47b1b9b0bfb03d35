package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

const (
	// pageSize is that of a module's memory.
	pageSize = 64 << 10
	// maxMemory is what a module's memory can grow to.
	maxMemory = 4 << 30
	// maxArgs bounds a module's arguments as Linux does those of programs, in
	// bytes.
	maxArgs = 2 << 20
	// secretsDir is where secrets are that are files.
	secretsDir = "/run/secrets"
	// tmpName is the folder, in the sandbox's runtime folder, that is /tmp where
	// the caller gives none.
	tmpName = "tmp"
)

// Create implements engine.Engine. The module is read and compiled here: one
// that can't run is refused.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	f := e.facts()
	if err := permit(&f, spec); err != nil {
		return nil, err
	}
	if err := sources(spec); err != nil {
		return nil, err
	}
	return e.create(ctx, spec)
}

// permit refuses what a module can't have.
func permit(f *engine.Features, spec *engine.Spec) error {
	if !f.Usable {
		return kept.Unsupported("engine", errors.New(f.Missing[0].Why))
	}
	if err := f.Check(spec); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	if spec.Module == "" {
		return kept.Unsupported("no module", errors.New("this engine runs modules only; set one"))
	}
	if !filepath.IsAbs(spec.Module) {
		return kept.Unsupported("module", fmt.Errorf("%q is no absolute path: whoever makes the sandbox fetches modules of URLs and registries", spec.Module))
	}
	if spec.Limits.Memory != 0 && spec.Limits.Memory < pageSize {
		return kept.Invalid("limits.memory", fmt.Errorf("%s: the least is a page of %s", spec.Limits.Memory, caisson.Bytes(pageSize)))
	}
	size := 0
	for _, arg := range spec.Args {
		size += len(arg) + 1
	}
	if size > maxArgs {
		return kept.Invalid("cmd", fmt.Errorf("%d bytes of arguments are more than %d", size, maxArgs))
	}
	return kept.CheckSecrets(spec)
}

// sources reports what is not there.
func sources(spec *engine.Spec) error {
	if _, err := os.Lstat(spec.Module); err != nil {
		return safefs.Sorted(caisson.OpCreate, "module: "+spec.Module, err)
	}
	for i, m := range spec.Mounts {
		if _, err := os.Lstat(m.Source); err != nil {
			return safefs.Sorted(caisson.OpCreate, fmt.Sprintf("mounts[%d]: %s", i, m.Source), err)
		}
	}
	return nil
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	return e.boxes.Create(ctx, &kept.Plan{
		Spec: spec, Record: kept.Record{Isolation: kept.None},
		Keeper: func(int) (*keeper.Spec, error) { return e.plan(spec) },
	})
}

// plan turns a spec into what the keeper is told.
func (e *Engine) plan(spec *engine.Spec) (*keeper.Spec, error) {
	box := &boxSpec{
		Module: spec.Module, Cache: e.opts.Cache, Memory: e.opts.Memory, Workdir: workdir(spec),
		UID: spec.WorkOwner.UID, GID: spec.WorkOwner.GID, Mounts: mounts(spec, e.boxes.Dir(spec.ID)),
		Patience: e.opts.Patience,
	}
	if spec.Limits.Memory > 0 {
		box.Memory = spec.Limits.Memory
	}
	if spec.Limits.CPUs > 0 {
		box.Group, box.CPUs = e.boxes.Group(spec.ID), spec.Limits.CPUs
	}
	for _, s := range spec.Secrets {
		if s.As == caisson.SecretFile {
			box.Secrets = append(box.Secrets, secretFile{Name: s.Name, Value: s.Value, Once: s.Once})
		}
	}
	data, err := json.Marshal(box)
	if err != nil {
		return nil, err
	}
	// None: there is no init, and no program of the host's.
	// Secrets that are there once are the box's own: there is no place for pipes.
	own := *spec
	own.Secrets = slices.Clone(spec.Secrets)
	for i := range own.Secrets {
		own.Secrets[i].Once = false
	}
	k := kept.KeeperSpec(&own, e.boxes.Dir(spec.ID), &isolate.Spec{ID: spec.ID, None: true}, program(spec))
	if spec.Limits.Memory > 0 || box.Group != "" {
		// For messages, and for whoever removes the group.
		k.Box.Cgroup = &isolate.Cgroup{Name: box.Group, Memory: spec.Limits.Memory}
	}
	k.Foreign = &keeper.Foreign{Kind: Kind, Data: data}
	return k, nil
}

// program is what the module is handed.
func program(spec *engine.Spec) isolate.Program {
	return isolate.Program{Args: append([]string{filepath.Base(spec.Module)}, spec.Args...), Env: environ(spec), Dir: workdir(spec)}
}

// workdir is the folder in which relative paths begin.
func workdir(spec *engine.Spec) string {
	if spec.Workdir != "" {
		return path.Clean(spec.Workdir)
	}
	return caisson.WorkDir
}

// mounts are all folders and files that the module sees.
func mounts(spec *engine.Spec, run string) []place {
	work, tmp := spec.Work, spec.Tmp
	var list []place
	if tmp == "" {
		list = append(list, place{Target: "/tmp", Source: filepath.Join(run, tmpName), Make: true})
	} else {
		list = append(list, place{Target: "/tmp", Source: tmp})
	}
	if work == "" {
		list = append(list, place{Target: caisson.WorkDir, Source: filepath.Join(run, "work"), Make: true})
	} else {
		list = append(list, place{Target: caisson.WorkDir, Source: work})
	}
	for _, m := range spec.Mounts {
		list = append(list, place{Target: m.Target, Source: m.Source, ReadOnly: m.ReadOnly, Exact: true})
	}
	return list
}

// environ is the module's environment, sorted. PWD tells it its folder: WASI
// has no other way.
func environ(spec *engine.Spec) []string {
	all := map[string]string{
		"PWD": workdir(spec), "HOME": caisson.WorkDir, "TMPDIR": "/tmp", "PATH": "/bin", "USER": "caisson",
	}
	maps.Copy(all, spec.Env)
	return kept.Environ(all, spec.Secrets)
}
