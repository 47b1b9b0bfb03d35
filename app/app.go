// Package app wires Caisson's parts together: for its own command line, and
// for programs that embed it. An embedding program does
//
//	func main() {
//		app.Reexec() // first of all: sandboxes begin as copies of this program
//		cfg, err := app.LoadConfig(nil)
//		...
//		a, err := app.New(cfg, nil)
//		...
//		defer a.Close()
//		id, err := a.Executor.Submit(ctx, task, &executor.Submission{BaseDir: dir})
//		...
//		err = a.Executor.Attend(ctx, id, false)
//		...
//		result, err := a.Executor.Wait(ctx, id)
//	}
//
// and adds engines, mounters and stagers of its own by Options.
package app

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/mapping"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/all"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/volume"
	"github.com/caissonrun/caisson/stage"
)

// Config is the configuration; its fields are those of caisson.toml.
type Config = config.Config

// Proxy is a section [proxy.NAME] of it.
type Proxy = config.Proxy

// ConfigOptions says where a configuration comes from.
type ConfigOptions = config.Options

// LoadConfig reads caisson.toml and CAISSON_* variables. Nil opts mean the
// usual files and this process's environment.
//
// Errors: ErrInvalid with everything that is wrong, a line each; ErrNotFound;
// ErrDenied.
func LoadConfig(opts *ConfigOptions) (*Config, error) {
	if opts == nil {
		opts = &ConfigOptions{}
	}
	return config.Load(opts)
}

// Options is what an embedding program adds.
type Options struct {
	// Engines, Mounters and Stagers are added to Caisson's own. One whose name,
	// type or scheme is there already is an error of kind ErrExists.
	Engines  []engine.Engine
	Mounters []mount.Mounter
	Stagers  []stage.Stager
	// Proxies are added to the upstreams of the configuration, by name: a task
	// names one in its proxies and reaches it, and nobody else does, as
	// http://NAME/, which is then the request's Host. The context of a request ends
	// with its sandbox; a handler that panics ends its request only. They have to be
	// there in every process that attends to tasks: see Attend.
	Proxies map[string]http.Handler
	// Lookup, Dial and Roots are how hosts are reached that tasks' allow-lists and
	// brokered secrets name, see executor.Options.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Roots  *x509.CertPool
	// Composite carries out tasks with a component. Nil: Caisson's own.
	Composite executor.Composite
	// Keeper is the argv that starts a keeper. Empty: the keeper that is part of
	// this program, or this program itself, see Reexec.
	Keeper []string
	// Attend is the argv that starts an attendant with the same configuration;
	// the task's id is appended. Empty: none can be started, and what is left
	// to do for a task is done by the next Recover or Attend.
	Attend []string
	// Fill is the argv that fills a warm pool with the same configuration; its name is
	// appended. Empty: pools are filled by Executor.Fill only.
	Fill []string
	// AttendEnv are variables, NAME=value, that attendants need for that.
	AttendEnv []string
	// Progress is told how far the staging of inputs is, see executor.Options.
	Progress func(task string, input int, done, total int64)
	// Pulled is told how much of an image is there, see executor.Options.
	Pulled func(task, ref string, p image.Progress)
	// Moved is told how far tables and files of component runs are; see
	// package component/mapping.
	Moved func(task string, p mapping.Progress)
	// Logger is told what no caller is told. Nil: discard.
	Logger *slog.Logger
}

// An App is Caisson wired together for one state folder.
type App struct {
	Executor *executor.Executor
	Volumes  *volume.Store // named volumes
	Images   *image.Store
	// Components runs data components.
	Components *run.Runner
	Engines    []string        // names of all engines, in order of preference
	All        []engine.Engine // the engines themselves
}

// binFolder is where, in the state folder, programs are put that must stay.
const binFolder = "bin"

// New wires everything that cfg asks for. It makes the state folder if it does
// not exist and touches no task. Nil opts add nothing.
//
// Errors: ErrExists for a duplicate name; those of executor.New; ErrInvalid
// for a setting that an engine, mounter or stager refuses.
func New(cfg *Config, opts *Options) (*App, error) {
	if opts == nil {
		opts = &Options{}
	}
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	folder, err := state.Open(cfg.State)
	if err != nil {
		return nil, err
	}
	engines, err := engines(cfg, opts, folder, logger)
	if err != nil {
		return nil, err
	}
	volumes := volume.NewStore(folder.Join("volumes"))
	images, err := images(&cfg.Image, folder)
	if err != nil {
		return nil, err
	}
	mounters, err := mounters(cfg, opts, folder, volumes)
	if err != nil {
		return nil, err
	}
	stagers, err := stagers(cfg, opts)
	if err != nil {
		return nil, err
	}
	upstreams, err := proxies(cfg, opts)
	if err != nil {
		return nil, err
	}
	warm, err := pools(cfg)
	if err != nil {
		return nil, err
	}
	runner := components(cfg, opts, images, logger)
	composite := opts.Composite
	if composite == nil {
		composite = runner
	}
	x, err := executor.New(&executor.Options{
		State: cfg.State, Runtime: cfg.Runtime,
		Engines: engines, Prefer: cfg.Executor.Prefer, LogLimit: cfg.Executor.LogLimit,
		Mounters: mounters, Stagers: stagers, Images: images,
		Attend: opts.Attend, AttendEnv: append(places(), opts.AttendEnv...), Progress: opts.Progress, Pulled: opts.Pulled, Logger: logger,
		Fingerprint: fingerprint(cfg), Composite: composite,
		Pools: warm, Fill: opts.Fill, Settings: settings(cfg),
		Proxies: upstreams, Lookup: opts.Lookup, Dial: opts.Dial, Roots: opts.Roots,
	})
	if err != nil {
		return nil, err
	}
	return &App{Executor: x, Volumes: volumes, Images: images, Components: runner, Engines: engineNames(engines), All: engines}, nil
}

// Close releases what the app holds. Tasks run on.
func (a *App) Close() error { return a.Executor.Close() }

// placeVariables are the variables by which engines, and what brings images,
// find what they use.
var placeVariables = [...]string{
	"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_CONFIG",
	"REGISTRY_AUTH_FILE", "BUILDKIT_HOST", "CNI_PATH",
}

// places returns those that are set, NAME=value: attendants must find the same.
func places() []string {
	var env []string
	for _, name := range placeVariables {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// fingerprint is a digest of what the findings of probes depend on, beside the
// program and the host: the configuration, and the variables by which engines
// find what they use.
func fingerprint(cfg *Config) string {
	hash := sha256.New()
	encoder := json.NewEncoder(hash)
	if encoder.Encode(cfg) != nil || encoder.Encode(cfg.Sections) != nil {
		return ""
	}
	for _, name := range append([]string{"PATH", "HOME"}, placeVariables[:]...) {
		fmt.Fprintf(hash, "%s=%s\n", name, os.Getenv(name))
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// duplicate is the error of a name that is there twice.
func duplicate(what, name string) error {
	return &caisson.Error{
		Op: caisson.OpConfig, Item: fmt.Sprintf("%s %q", what, name), Kind: caisson.ErrExists,
		Err: errors.New("there are two of that name, rename or leave out one"),
	}
}

// engines returns Caisson's own engines and those of opts.
func engines(cfg *Config, opts *Options, folder *state.Folder, logger *slog.Logger) ([]engine.Engine, error) {
	command := keeper.Command(opts.Keeper)
	if len(command) == 0 {
		var err error
		if command, err = keeper.Program(folder.Join(binFolder)); err != nil {
			return nil, err
		}
	}
	self, err := keeper.Self(folder.Join(binFolder))
	if err != nil {
		return nil, err
	}
	list, err := all.Engines(&all.Options{
		Config: cfg, Installation: folder.Short(), Keeper: command, Self: self, Init: initOf(command, self), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	list = append(list, opts.Engines...)
	seen := map[string]bool{}
	for _, name := range engineNames(list) {
		if seen[name] {
			return nil, duplicate("engine", name)
		}
		seen[name] = true
	}
	return list, nil
}

// initOf returns what is the first process of containers: the small keeper where
// there is one, or this program.
func initOf(command keeper.Command, self string) string {
	if len(command) == 1 && filepath.IsAbs(command[0]) {
		return command[0]
	}
	return self
}

func engineNames(list []engine.Engine) []string {
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}
