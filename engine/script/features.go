package script

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/schema"
)

// The engine's documentation and schema, as Features carries them.
var (
	//go:embed doc.md
	doc string
	//go:embed config.schema.json
	configSchema []byte
)

// maxSchema is the most that the operator's schema may have, in bytes.
const maxSchema = 1 << 20

// Probe implements engine.Engine. It has the runner probed, reads the schema,
// and runs the program if the operator says how that can do no harm.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	var inner engine.Features
	var err error
	// Without a program there is no need to make a sandbox for it.
	if len(e.opts.Program) > 0 {
		inner, err = e.opts.In.Probe(ctx)
	}
	if err != nil {
		return engine.Features{}, err
	}
	f := e.opts.features(&inner)
	f.OptionsSchema, err = e.opts.works(ctx, &f)
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	if err != nil {
		f.Usable = false
		f.Missing = append([]engine.Missing{{What: "the operator's program", Why: err.Error(), Do: "see engine.script in the configuration"}}, f.Missing...)
	}
	e.found.Store(&f)
	return f, nil
}

// works returns the schema, or why the program can't be run.
func (o *Options) works(ctx context.Context, f *engine.Features) ([]byte, error) {
	if len(o.Program) == 0 {
		return nil, errors.New("none is configured")
	}
	data, _, err := o.schema()
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(o.Program[0]); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there; build or install it", o.Program[0])
	} else if err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("%s is not an executable file", o.Program[0])
	}
	if !f.Usable || len(o.Check) == 0 {
		return data, nil
	}
	err = o.In.Try(ctx, func(spec *engine.Spec) error {
		if err := o.dress(spec); err != nil {
			return err
		}
		spec.Args = append(spec.Args, o.Check...)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("check: %w", err)
	}
	return data, err
}

// schema reads the schema of a task's options.
func (o *Options) schema() ([]byte, *schema.Schema, error) {
	f, err := os.Open(o.Schema)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSchema+1))
	if err == nil && len(data) > maxSchema {
		err = fmt.Errorf("larger than %d bytes", maxSchema)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("schema %s: %w", o.Schema, err)
	}
	compiled, err := schema.Compile(data)
	if err != nil {
		return nil, nil, fmt.Errorf("schema %s: %w", o.Schema, err)
	}
	return data, compiled, nil
}

// features are what is left of the runner's for a task that has no program of
// its own.
func (o *Options) features(in *engine.Features) engine.Features {
	f := engine.Features{
		Usable: in.Usable && in.Command && in.Input, Version: in.Version, MaxSandboxes: in.MaxSandboxes,
		Options: true, OptionsOnly: true, ShareWork: in.ShareWork,
		Limits: in.Limits,
		Networks: engine.NetworkFeatures{
			None: o.Network == caisson.NetworkNone, Host: o.Network == caisson.NetworkHost,
		},
		Stats: in.Stats, Pause: in.Pause,
		Isolation: in.Isolation, Missing: o.missing(in),
		ConfigSchema: configSchema, Doc: doc,
	}
	// A work folder that is not shared would need Files.
	f.Limits.Disk = f.Limits.Disk && !in.PrivateDisk
	return f
}

// missing says why what is not there is not: the runner's reasons that still
// hold, and the engine's own.
func (o *Options) missing(in *engine.Features) []engine.Missing {
	const theirs = "the program is the operator's, and a task only tells it what to do"
	list := []engine.Missing{}
	for _, what := range []string{
		engine.WhatCommands, engine.WhatScripts, engine.WhatImages, engine.WhatModules, engine.WhatMachines, engine.WhatOwnProgram,
		engine.WhatUsers, engine.WhatHostname, engine.WhatSecrets, engine.WhatBinds, engine.WhatTmpfs, engine.WhatReadOnly,
		engine.WhatExec, engine.WhatWarm,
	} {
		list = append(list, engine.Missing{What: what, Why: theirs})
	}
	kept := map[string]bool{
		engine.WhatCPUs: true, engine.WhatMemory: true, engine.WhatPIDs: true, engine.WhatDisk: true, engine.WhatLog: true,
		engine.WhatFiles: true, engine.WhatStats: true, engine.WhatPause: true,
	}
	var first []engine.Missing
	for _, m := range in.Missing {
		switch {
		case !in.Usable:
			first = append(first, m)
		case kept[m.What]:
			list = append(list, m)
		}
	}
	return append(first, list...)
}

// formal is what Create goes by before the first Probe: the runner then
// refuses by itself what it can't do.
func (o *Options) formal() *engine.Features {
	f := o.features(&engine.Features{
		Usable: true, Command: true, Input: true, ShareWork: true, Stats: true, Pause: true,
		Limits: engine.LimitFeatures{CPUs: true, Memory: true, PIDs: true, Disk: true, Log: true, Files: true},
	})
	return &f
}
