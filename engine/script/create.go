package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// artifacts is the folder, in the work folder, for the files that the
	// program makes; the variable names its path.
	artifacts    = "artifacts"
	artifactsVar = "CAISSON_ARTIFACTS"
	// besideDir is where the program and its files appear in a sandbox.
	besideDir = "/script"
	// maxSecret is the most that a secret may have, in bytes.
	maxSecret = 1 << 20
	// recordFile is the engine's own record in Spec.Dir.
	recordFile = "script.json"
)

// A record is what Recover needs to know beside the runner's handle.
type record struct {
	Log string `json:"log"`
}

// Create implements engine.Engine. The payload is checked again, against the
// schema as it is now: who calls may go by an older one.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (_ engine.Sandbox, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	inner, err := e.inner(spec)
	if err != nil {
		return nil, err
	}
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	if err := makeArtifacts(spec, &undo); err != nil {
		return nil, err
	}
	data, err := json.Marshal(&record{Log: spec.Log})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(spec.Dir, recordFile)
	undo.Add(func() error { return remove(file) })
	if err := atomicfile.Write(file, data, 0o600); err != nil {
		return nil, safefs.Sorted(caisson.OpCreate, file, err)
	}
	box, err := e.opts.In.Create(ctx, inner)
	if err != nil {
		return nil, err
	}
	return wrap(box, spec.Dir), nil
}

// inner returns what the runner is to make of a task, or refuses it.
func (e *Engine) inner(spec *engine.Spec) (*engine.Spec, error) {
	f := e.found.Load()
	if f == nil {
		f = e.opts.formal()
	}
	if len(e.opts.Program) == 0 {
		return nil, kept.Unsupported("program", errors.New("none is configured (engine.script.program)"))
	}
	if err := f.Check(spec); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	_, compiled, err := e.opts.schema()
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: "engine.script.schema", Kind: caisson.ErrUnavailable, Err: err}
	}
	payload, err := compiled.Check(spec.Options)
	if err != nil {
		return nil, kept.Invalid("options", err)
	}
	in := *spec
	in.Options, in.Input, in.Workdir = nil, payload, ""
	in.Env = maps.Clone(spec.Env)
	if in.Env == nil {
		in.Env = map[string]string{}
	}
	in.Env[artifactsVar] = path.Join(caisson.WorkDir, artifacts)
	return &in, e.opts.dress(&in)
}

// dress has spec run the operator's program, with what that needs.
func (o *Options) dress(spec *engine.Spec) error {
	spec.Args = slices.Clone(o.Program)
	if o.Network == caisson.NetworkHost && !o.Bare {
		spec.Network = caisson.Network{Mode: caisson.NetworkHost}
	}
	if o.Bare {
		return nil
	}
	spec.Args[0] = path.Join(besideDir, filepath.Base(o.Program[0]))
	for _, source := range append([]string{o.Program[0]}, o.Files...) {
		real, err := filepath.EvalSymlinks(source)
		if err != nil {
			return unavailable(source, err)
		}
		target := path.Join(besideDir, filepath.Base(source))
		spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountBind, Source: real, Target: target, ReadOnly: true})
	}
	for _, name := range slices.Sorted(maps.Keys(o.Secrets)) {
		value, err := readSecret(o.Secrets[name])
		if err != nil {
			return unavailable("secret "+name, err)
		}
		spec.Secrets = append(spec.Secrets, engine.Secret{Name: name, Value: value, As: caisson.SecretFile})
	}
	return nil
}

// readSecret reads a file of the operator's.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxSecret)
	}
	return data, err
}

// unavailable says that what the operator has configured is not there.
func unavailable(item string, err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrUnavailable, Err: err}
}

// makeArtifacts makes the folder that the program puts its files into, unless
// the task's inputs have.
func makeArtifacts(spec *engine.Spec, undo *cleanup.List) error {
	if spec.Work == "" {
		return nil
	}
	work, err := safefs.Open(spec.Work, nil)
	if err != nil {
		return safefs.Sorted(caisson.OpCreate, spec.Work, err)
	}
	defer work.Close()
	info, err := work.Stat(artifacts)
	switch {
	case err == nil && info.Mode.IsDir():
		return nil
	case err == nil:
		return kept.Invalid(artifacts, errors.New("an input of that name is no folder"))
	}
	owner := &safefs.Owner{UID: spec.WorkOwner.UID, GID: spec.WorkOwner.GID}
	if err := work.MkdirAll(artifacts, 0o755, owner); err != nil {
		return safefs.Sorted(caisson.OpCreate, artifacts, err)
	}
	undo.Add(func() error { return remove(filepath.Join(spec.Work, artifacts)) })
	return nil
}

// remove removes a file or an empty folder. It can be called again.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
