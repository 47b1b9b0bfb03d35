//go:build unix

package all

import (
	"path/filepath"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/wasm"
	"github.com/caissonrun/caisson/keeper"
)

// ofModules returns the engine wasm.
func ofModules(opts *Options) (engine.Engine, error) {
	return wasm.New(&wasm.Options{
		Memory:       opts.Config.Engine.Wasm.Memory,
		Installation: opts.Installation,
		Runtime:      runtime(opts, wasm.Name),
		Cache:        filepath.Join(opts.Config.State, wasm.Name),
		Keeper:       keeper.Command{opts.Self, keeper.Subcommand},
	})
}
