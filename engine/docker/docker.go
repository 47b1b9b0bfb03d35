// Package docker runs images by a Docker daemon, or by one that speaks its API
// from version 1.41 on, such as Podman's.
//
// The daemon makes the container: images, namespaces, control groups, networks,
// volumes. Its first process is Caisson's own small program, bound into the
// container read-only, and so the rest is as in every engine: programs are
// started, signalled and killed by it, the keeper (package keeper) talks to it
// by a socket in a folder that both see, and exits, execs, terminals, files and
// figures are exact and do not need the daemon. What the program prints goes
// through the daemon, so that the container outlives its keeper: a new one
// takes it up, with its log and its true exit.
//
// What isolates is what the daemon uses: the host's kernel with namespaces,
// control groups, capabilities and seccomp. Who may talk to the daemon is root
// on its host. It needs Linux, and a daemon on this host that sees its folders.
// What it is for users stands in doc.md.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/keeper"
)

// Name is the engine's name.
const Name = "docker"

// What Options are where they say nothing.
const (
	// DefaultUID and DefaultGID are who programs run as in non-root mode.
	DefaultUID = 1000
	DefaultGID = 1000
)

// Options configures an Engine. Runtime, State, Keeper and Init are required.
type Options struct {
	// Host is the daemon's address. Empty: that of DOCKER_HOST, which all makes
	// of it, or unix:///var/run/docker.sock.
	Host string
	// Root lifts the non-root mode: users are then what the image and the task
	// say, root too.
	Root bool
	// AllowPrivileged, AllowDevices, AllowGPUs and AllowHostNetwork let tasks
	// ask for these.
	AllowPrivileged, AllowDevices, AllowGPUs, AllowHostNetwork bool
	// Network is the daemon's network that network default means. Empty: there
	// is none, because Docker's own bridge reaches the host and what is near it.
	Network string
	// Networks are the daemon's networks that tasks may name; empty: all but
	// host and none.
	Networks []string
	// Config is the path of a config.json with credentials of registries.
	// Empty: none are known but a task's own.
	Config string
	// ImageTTL is how long an image that was pulled for a task is kept without
	// being used. Zero: for ever.
	ImageTTL time.Duration
	// Verify has each image that was pulled be tried by making a container.
	Verify bool
	// Installation names the state folder that this engine works for: [a-z0-9],
	// at most 16. Sweep touches nothing of another one. Empty: "0".
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes
	// that may be shared by installations. It is made if it does not exist.
	Runtime string
	// State is an absolute folder for the record of images.
	State string
	// Keeper is how keepers are started that know Kind.
	Keeper keeper.Command
	// Init is the path of a static program that is pid 1 of containers, see
	// isolate.GuestArgs.
	Init string
	// Logger is told what has no other way to be seen. Nil: nobody.
	Logger *slog.Logger
}

// An Engine makes sandboxes by a container daemon.
type Engine struct {
	opts   Options
	daemon *daemon
	boxes  *kept.Sandboxes
	images *images
	found  atomic.Pointer[found] // by the last Probe, or by the first Create

	finding sync.Mutex
}

var (
	_ engine.Engine        = (*Engine)(nil)
	_ engine.Looker        = (*Engine)(nil)
	_ engine.Preparer      = (*Engine)(nil)
	_ engine.Networker     = (*Engine)(nil)
	_ engine.NetworkLister = (*Engine)(nil)
)

// New returns an engine. It does not talk to the daemon.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	o.Networks = slices.Clone(o.Networks)
	if o.Installation == "" {
		o.Installation = "0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	d, err := connect(o.Host)
	if err != nil {
		return nil, err
	}
	e.daemon = d
	e.images = newImages(d, o)
	e.boxes = kept.New(&kept.Options{
		Engine: Name, Groups: "caissondocker", Installation: o.Installation, Runtime: o.Runtime,
		IDs: kept.Range{Base: 1 << 30, Count: 1, Each: 1}, Keeper: o.Keeper,
		Remove: e.remove, Revive: e.revive,
	})
	return e, nil
}

// check names everything that is wrong, by the keys of the configuration.
func (o *Options) check() error {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(o.ImageTTL < 0, "image_ttl: %s is negative", o.ImageTTL)
	add(o.Config != "" && !filepath.IsAbs(o.Config), "auth_file: %q is not an absolute path", o.Config)
	if err := kept.CheckInstallation(o.Installation); err != nil {
		add(true, "installation: %v", err)
	}
	for what, path := range map[string]string{"runtime": o.Runtime, "state": o.State, "init": o.Init} {
		add(!filepath.IsAbs(path), "%s: %q is not an absolute path", what, path)
	}
	add(len(o.Keeper) == 0, "keeper: no command is given")
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine.docker", Kind: caisson.ErrInvalid,
		Err: errors.New(strings.Join(wrong, "; ")),
	}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Recover implements engine.Engine. Where the keeper was killed, a new one
// takes up the container.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	return e.boxes.Recover(ctx, dir)
}

// Running implements engine.Looker.
func (e *Engine) Running(dir string) (bool, error) { return e.boxes.Running(dir) }

// Close implements engine.Engine. Containers and their keepers live on.
func (e *Engine) Close() error {
	err := e.boxes.Close()
	e.daemon.Close()
	return err
}
