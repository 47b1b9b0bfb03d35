package config

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Wasm is the section [engine.wasm].
type Wasm struct {
	Memory caisson.Bytes `json:"memory"` // what a module's memory may grow to where its task sets no limit; 0: 4 GiB
}

func wasmSection() *fields.Type {
	return section("settings of the engine wasm",
		fields.Field{
			Name: "memory", Type: sizeType(), Default: "4g, which is what WebAssembly permits", Examples: []any{"256m"},
			Doc: "What a module's memory may grow to where its task sets no limit.",
		},
	)
}
