package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/network"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/keeper"
)

// What is in a sandbox's runtime folder besides what package kept puts there.
const (
	folderName = "in"     // insideDir
	reviveName = "revive" // what a new keeper is told; it holds secrets
	resolvName = "resolv.conf"
)

// A mine is the engine's own part of the handle.
type mine struct {
	// Chowned are folders whose files belong to UID and GID until the sandbox
	// is destroyed.
	Chowned  []string `json:"chowned,omitempty"`
	UID, GID int
	// Apart says that the host can't reach it by its network.
	Apart bool `json:"apart,omitempty"`
}

// Create implements engine.Engine.
func (e *Engine) Create(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return nil, err
	}
	f, err := e.facts(ctx)
	if err != nil {
		return nil, err
	}
	choice, err := e.opts.permit(f, spec)
	if err != nil {
		return nil, err
	}
	img, err := e.images.get(ctx, spec.Image, spec.Registry, secretOf(spec))
	if err != nil {
		return nil, err
	}
	return e.create(ctx, spec, choice, img, f)
}

// Prepare implements engine.Preparer: it pulls the image.
func (e *Engine) Prepare(ctx context.Context, spec *engine.Spec) error {
	if err := e.boxes.Open(ctx, caisson.OpCreate); err != nil {
		return err
	}
	if spec.Image == "" {
		return nil
	}
	_, err := e.images.get(ctx, spec.Image, spec.Registry, secretOf(spec))
	return err
}

// secretOf returns the value of the secret that the registry's password names.
func secretOf(spec *engine.Spec) string {
	if spec.Registry == nil {
		return ""
	}
	for _, s := range spec.Secrets {
		if s.Name == spec.Registry.Password {
			return string(s.Value)
		}
	}
	return ""
}

// sources reports binds of what is not there: Podman would make a folder in its
// place.
func sources(spec *engine.Spec) error {
	for i, m := range spec.Mounts {
		if m.Type != engine.MountBind {
			continue
		}
		if _, err := os.Lstat(m.Source); err != nil {
			return safefs.Sorted(caisson.OpCreate, fmt.Sprintf("mounts[%d]: %s", i, m.Source), err)
		}
	}
	return nil
}

// create makes the sandbox, and leaves nothing if it can't.
func (e *Engine) create(ctx context.Context, spec *engine.Spec, choice *choice, img *image, f *found) (engine.Sandbox, error) {
	if err := sources(spec); err != nil {
		return nil, err
	}
	who, err := e.user(ctx, spec, img)
	if err != nil {
		return nil, err
	}
	set := &setting{
		opts: &e.opts, choice: choice, image: img, who: who, found: f,
		run: e.boxes.Dir(spec.ID), name: e.containerName(spec.ID), mark: newMark(),
	}
	if set.shared, err = sharedBy(spec); err != nil {
		return nil, err
	}
	own := &mine{UID: who.uid, GID: who.gid, Chowned: set.chowned(spec), Apart: set.shared != nil && set.shared.Allow}
	data, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	return e.boxes.Create(ctx, &kept.Plan{
		Spec: spec, Record: kept.Record{Isolation: Name, Data: data, Inside: f.ungated == nil && spec.Network.Mode != caisson.NetworkHost},
		Keeper: func(int) (*keeper.Spec, error) { return set.keeper(spec) },
		Prepare: func(ctx context.Context, _ int, undo *cleanup.List) error {
			return e.prepare(ctx, spec, set, own, undo)
		},
		Shell: "/bin/sh", UID: who.uid, GID: who.gid,
	})
}

// prepare makes what the container needs on this host.
func (e *Engine) prepare(ctx context.Context, spec *engine.Spec, set *setting, own *mine, undo *cleanup.List) error {
	// The first process makes its socket there; then the folder is closed to it.
	dir := filepath.Join(set.run, folderName)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, initName), nil, 0o644); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, own.UID, own.GID)); err != nil {
		return fmt.Errorf("give %s to the program's user: %w; containers need Caisson to run as root", dir, err)
	}
	if set.ownResolv(spec) {
		text, _ := network.Resolv(resolver(spec), nil, nil, false)
		if err := os.WriteFile(filepath.Join(set.run, resolvName), text, 0o644); err != nil {
			return err
		}
	}
	kept, err := set.keeper(spec)
	if err != nil {
		return err
	}
	if err := writeRevive(set.run, kept); err != nil {
		return err
	}
	undo.AddContext(func(ctx context.Context) error { return own.giveBack(ctx, spec.WorkOwner) })
	return own.giveAway(ctx, spec.WorkOwner)
}

// writeRevive keeps what a new keeper will need, in the runtime folder, which is
// in memory, for root alone.
func writeRevive(run string, k *keeper.Spec) error {
	again := *k
	// What was to be read once may have been read.
	again.Once = nil
	foreign := *k.Foreign
	foreign.Adopt = true
	again.Foreign = &foreign
	data, err := json.Marshal(&again)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(run, reviveName), data, 0o600)
}

// revive returns what a new keeper is told that takes up a container whose
// keeper was killed. Without a container there is nothing to take up.
//
// Errors: ErrNotFound if nothing of the sandbox is there.
func (e *Engine) revive(ctx context.Context, sandbox string, rec *kept.Record) (*keeper.Spec, error) {
	data, err := os.ReadFile(filepath.Join(rec.Run, reviveName))
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpRecover, Item: sandbox, Kind: caisson.ErrNotFound, Err: err}
	}
	spec := new(keeper.Spec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, err
	}
	running, err := e.daemon.runs(ctx, e.containerName(sandbox))
	if err == nil && !running {
		err = &caisson.Error{Op: caisson.OpRecover, Item: sandbox, Kind: caisson.ErrNotFound, Err: errors.New("the container has ended")}
	}
	return spec, err
}

// remove removes what is left of a sandbox: its container, and the owner of its
// folders' files. It is repeatable.
func (e *Engine) remove(ctx context.Context, sandbox string, rec *kept.Record) error {
	if err := e.daemon.remove(ctx, e.containerName(sandbox)); err != nil {
		return err
	}
	if len(rec.Data) == 0 {
		return nil
	}
	own := new(mine)
	if err := json.Unmarshal(rec.Data, own); err != nil {
		return err
	}
	return own.giveBack(ctx, engine.Owner{UID: rec.UID, GID: rec.GID})
}

// containerName is the container's name.
func (e *Engine) containerName(sandbox string) string {
	return "caisson-" + e.opts.Installation + "-" + sandbox
}

// giveAway makes the files of the folders the program's user's.
func (m *mine) giveAway(ctx context.Context, owner engine.Owner) error {
	return m.chown(ctx, owner.UID, owner.GID, m.UID, m.GID)
}

// giveBack undoes giveAway, also one that was cut short.
func (m *mine) giveBack(ctx context.Context, owner engine.Owner) error {
	return m.chown(ctx, m.UID, m.GID, owner.UID, owner.GID)
}

func (m *mine) chown(ctx context.Context, fromUID, fromGID, uid, gid int) error {
	var all []error
	for _, dir := range m.Chowned {
		root, err := safefs.Open(dir, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = root.ChownAll(ctx, ".", safefs.Owner{UID: uid, GID: gid}, func(u, g int) bool {
				return u == fromUID && g == fromGID || u == uid && g == gid
			})
			root.Close()
		}
		if err != nil {
			all = append(all, fmt.Errorf("give %s to user %d: %w", dir, uid, err))
		}
	}
	return errors.Join(all...)
}
