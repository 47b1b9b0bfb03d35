package wasm

import (
	_ "embed"
	"runtime"

	"github.com/caissonrun/caisson/engine"
)

// The engine's documentation and schema, as Features carries them.
var (
	//go:embed doc.md
	doc string
	//go:embed config.schema.json
	configSchema []byte
)

// features is what is declared, with why nothing works and why processor time
// can't be bounded, or nil.
func features(broken, share error) engine.Features {
	out := engine.Features{
		Usable:  broken == nil,
		Version: "wazero " + version() + ", " + runtime.GOARCH + ", WASI preview 1",
		Module:  true, ShareWork: true, Warm: true, Secrets: true,
		Limits:       engine.LimitFeatures{CPUs: share == nil, Memory: true, Log: true},
		Networks:     engine.NetworkFeatures{None: true},
		Mounts:       engine.MountFeatures{Bind: true, ReadOnly: true},
		ConfigSchema: configSchema, Doc: doc,
	}
	if broken != nil {
		out.Missing = []engine.Missing{{What: engine.WhatModules, Why: broken.Error()}}
		return out
	}
	out.Isolation = []string{
		engine.SeparateLanguage, engine.IsolatedRoot, engine.KilledTogether, engine.CleanDescriptors, engine.CleanEnvironment,
	}
	const language = "a module has nothing of the kind"
	for _, what := range []string{engine.WhatPIDs, engine.WhatExec, engine.WhatTerminals, engine.WhatUsers, engine.WhatNetwork} {
		out.Missing = append(out.Missing, engine.Missing{What: what, Why: language})
	}
	if share != nil {
		out.Missing = append(out.Missing, engine.Missing{What: engine.WhatCPUs, Why: share.Error()})
	}
	return out
}
