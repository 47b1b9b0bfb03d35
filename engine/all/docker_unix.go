//go:build unix

package all

import (
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/docker"
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
		AllowPrivileged: section.Privileged, AllowDevices: section.AllowDevices, AllowGPUs: section.AllowGPUs,
		AllowHostNetwork: section.AllowHostNetwork,
		Network:          section.Network, Networks: section.Networks,
		Config: section.Config, ImageTTL: section.ImageTTL.Std(), Verify: section.Verify,
		Installation: opts.Installation,
		Runtime:      runtime(opts, docker.Name), State: filepath.Join(opts.Config.State, docker.Name),
		Keeper: keeper.Command{opts.Self, keeper.Subcommand}, Init: opts.Init,
		Logger: opts.Logger,
	})
}

// Openers are the sandboxes that only the main binary's keeper can make.
func Openers() map[string]server.Opener {
	return map[string]server.Opener{docker.Kind: docker.OpenBox}
}
