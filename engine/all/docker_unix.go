//go:build unix

package all

import (
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/docker"
	"github.com/caissonrun/caisson/engine/qemu"
	"github.com/caissonrun/caisson/engine/wasm"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

// hostVariable is Docker's own variable for the daemon's address.
const hostVariable = "DOCKER_HOST"

// ofDaemon returns the engine docker.
func ofDaemon(opts *Options) (engine.Engine, error) {
	section := &opts.Config.Engine.Docker
	host := section.Host
	if host == "" {
		host = os.Getenv(hostVariable)
	}
	return docker.New(&docker.Options{
		Host: host, Root: !section.NonRoot,
		AllowPrivileged: section.AllowPrivileged, AllowDevices: section.AllowDevices, AllowGPUs: section.AllowGPUs,
		AllowHostNetwork: section.AllowHostNetwork,
		Network:          section.Network, Networks: section.Networks,
		Config: authFile(opts.Config.Image.AuthFile), ImageTTL: section.ImageTTL.Std(), Verify: section.Verify,
		Installation: opts.Installation,
		Runtime:      runtime(opts, docker.Name), State: filepath.Join(opts.Config.State, docker.Name),
		Keeper: keeper.Command{opts.Self, keeper.Subcommand}, Init: opts.Init,
		Logger: opts.Logger,
	})
}

// authFile returns where the operator keeps credentials of registries, or "". It
// is the same for all engines.
func authFile(configured string) string {
	if configured != "" {
		return configured
	}
	path := os.Getenv("REGISTRY_AUTH_FILE")
	if path == "" {
		dir := os.Getenv("DOCKER_CONFIG")
		if home, err := os.UserHomeDir(); dir == "" && err == nil {
			dir = filepath.Join(home, ".docker")
		}
		path = filepath.Join(dir, "config.json")
	}
	if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// Openers are the sandboxes that only the main binary's keeper can make.
func Openers() map[string]server.Opener {
	return map[string]server.Opener{docker.Kind: docker.OpenBox, wasm.Kind: wasm.OpenBox, qemu.Kind: qemu.OpenBox}
}
