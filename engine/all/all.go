// Package all is the one list of engines.
package all

import (
	"log/slog"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/native"
	"github.com/caissonrun/caisson/engine/oci"
	"github.com/caissonrun/caisson/engine/script"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/keeper"
)

// Options is what all engines are made from.
type Options struct {
	Config *config.Config
	// Installation names the state folder, see native.Options.
	Installation string
	// Keeper is how keepers are started.
	Keeper keeper.Command
	// Self is an absolute path, which stays, of this program: with the argument
	// keeper.Subcommand it is a keeper that knows the sandboxes of all engines.
	Self string
	// Init is an absolute path, which stays, of a static program that is the
	// first process of containers where it is asked to: the small keeper, or
	// this program.
	Init   string
	Logger *slog.Logger // nil: discard
}

// Engines returns every engine, whether it works on this host or not, in the
// order in which they are preferred where the configuration says nothing.
//
// Errors: ErrInvalid for a setting that an engine refuses.
func Engines(opts *Options) ([]engine.Engine, error) {
	section := &opts.Config.Engine.Native
	direct, err := native.New(&native.Options{
		Shell: section.Shell,
		UID:   section.UID, GID: section.GID,
		IDBase: section.IDBase, IDCount: section.IDCount,
		Isolation:        section.Isolation,
		AllowNone:        section.AllowNone,
		AllowHostNetwork: section.AllowHostNetwork,
		Paths:            section.Paths,
		Installation:     opts.Installation,
		Runtime:          runtime(opts, native.Name),
		Keeper:           opts.Keeper,
		Logger:           opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	images, err := ofImages(opts)
	if err != nil {
		return nil, err
	}
	daemon, err := ofDaemon(opts)
	if err != nil {
		return nil, err
	}
	machines, err := ofMachines(opts)
	if err != nil {
		return nil, err
	}
	modules, err := ofModules(opts)
	if err != nil {
		return nil, err
	}
	operators, err := ofOperator(opts)
	if err != nil {
		return nil, err
	}
	return []engine.Engine{direct, images, daemon, machines, modules, operators}, nil
}

// ofOperator returns the engine script, whose program runs as a process of this
// host.
func ofOperator(opts *Options) (engine.Engine, error) {
	section := &opts.Config.Engine.Script
	in, err := native.New(&native.Options{
		Name: script.Name,
		UID:  section.UID, GID: section.GID,
		IDBase: section.IDBase, IDCount: section.IDCount,
		Isolation:        section.Isolation,
		AllowHostNetwork: section.Network == caisson.NetworkHost,
		Installation:     opts.Installation,
		Runtime:          runtime(opts, script.Name),
		Keeper:           opts.Keeper,
		Logger:           opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	return script.New(&script.Options{
		In: in, Bare: section.Isolation == native.None,
		Program: section.Program, Check: section.Check, Schema: section.Schema,
		Files: section.Files, Secrets: section.Secrets, Network: section.Network,
	})
}

// ofImages returns the engine oci.
func ofImages(opts *Options) (engine.Engine, error) {
	section := &opts.Config.Engine.OCI
	return oci.New(&oci.Options{
		Use: section.Runtime, Prefer: section.Prefer,
		EnforceFloors: section.EnforceFloors, AllowRuntimes: section.AllowRuntimes,
		Root: !section.NonRoot,
		UID:  section.UID, GID: section.GID,
		IDBase: section.IDBase, IDCount: section.IDCount,
		Volumes:          section.VolumesEnabled,
		AllowHostNetwork: section.AllowHostNetwork,
		CNIConfigDir:     section.CNIConfigDir,
		CNIPluginDirs:    section.CNIPluginDirs,
		DefaultSubnet:    section.DefaultSubnet,
		VPNs:             vpns(opts),
		Ports:            ports(opts),
		AllowDevices:     section.AllowDevices,
		AllowCaps:        section.AllowCaps,
		AllowInsecure:    section.AllowInsecureOptions,
		Installation:     opts.Installation,
		Runtime:          runtime(opts, oci.Name),
		Keeper:           opts.Keeper,
		Logger:           opts.Logger,
	})
}

// vpns are the networks that lead through a VPN.
func vpns(opts *Options) map[string]string {
	list := make(map[string]string, len(opts.Config.Networks))
	for name, n := range opts.Config.Networks {
		list[name] = n.OpenVPN
	}
	return list
}

// ports is the folder of the host's ports that sandboxes of any engine have.
func ports(opts *Options) string { return filepath.Join(opts.Config.Runtime, "ports") }

// runtime returns the runtime folder of an engine: what it does not know in
// there it takes for its own and sweeps.
func runtime(opts *Options, name string) string { return filepath.Join(opts.Config.Runtime, name) }
