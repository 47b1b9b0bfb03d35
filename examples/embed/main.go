// Command embed is Caisson with a type of mount of its own. It has the whole
// command line, and tasks may say
//
//	mounts:
//	  - {type: mymounter, source: books, target: /books}
//
// for a collection of files that the operator keeps in a folder:
//
//	[mounter.mymounter]
//	root = "/srv/collections"
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/mount"
)

// section is the name of this program's part of caisson.toml.
const section = "mounter.mymounter"

// settings is what may be in it. Whatever else is there is refused, with the
// line where it stands.
const settings = `{
	"type": "object",
	"properties": {
		"root": {"type": "string", "description": "The folder with a folder for each collection."}
	},
	"required": ["root"]
}`

func main() {
	app.Reexec() // first of all: sandboxes begin as copies of this program
	os.Exit(app.Main(&app.Extension{
		Sections: map[string]*app.Section{section: {Schema: json.RawMessage(settings)}},
		Options: func(cfg *app.Config) (*app.Options, error) {
			m := &mymounter{}
			if err := json.Unmarshal(orEmpty(cfg.Sections[section]), m); err != nil {
				return nil, err
			}
			// mount.Only(m, "oci") would have it for one engine only.
			return &app.Options{Mounters: []mount.Mounter{m}}, nil
		},
	}))
}

// orEmpty is an empty section where there is none.
func orEmpty(data json.RawMessage) json.RawMessage {
	if data == nil {
		return json.RawMessage("{}")
	}
	return data
}

// mymounter mounts collections, read-only.
type mymounter struct {
	Root string `json:"root"`
}

var _ mount.Mounter = (*mymounter)(nil)

// Type implements mount.Mounter.
func (*mymounter) Type() string { return "mymounter" }

// Check implements mount.Mounter. It is called before the task is accepted.
func (m *mymounter) Check(mt caisson.Mount, _ mount.Env) error {
	if err := errors.Join(mount.CheckTarget(mt), mount.CheckOpts(mt)); err != nil {
		return err
	}
	_, err := m.find(mt)
	return err
}

// find returns the collection's folder. The task's source is a name and never
// a path: what it could say otherwise, such as .., would lead elsewhere.
func (m *mymounter) find(mt caisson.Mount) (string, error) {
	if m.Root == "" {
		return "", mount.Invalid(mt, "there are no collections: set root in ["+section+"] of caisson.toml")
	}
	if !filepath.IsLocal(mt.Source) || filepath.Base(mt.Source) != mt.Source || mt.Source == "." {
		return "", mount.Invalid(mt, fmt.Sprintf("source %q: name a collection", mt.Source))
	}
	root, err := filepath.EvalSymlinks(m.Root)
	if err != nil {
		return "", &caisson.Error{Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrNotFound, Err: err}
	}
	dir := filepath.Join(root, mt.Source)
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return "", &caisson.Error{
			Op: caisson.OpMount, Item: mount.Item(mt), Kind: caisson.ErrNotFound,
			Err: fmt.Errorf("there is no collection %q", mt.Source),
		}
	}
	return dir, err
}

// Mount implements mount.Mounter. It says what the engine is to bring into the
// sandbox: a folder of the host, at the task's target, read-only. Had it to make
// something first, it would save the place before that.
func (m *mymounter) Mount(_ context.Context, req *mount.Request) (*mount.Place, error) {
	dir, err := m.find(req.Mount)
	if err != nil {
		return nil, err
	}
	place := mount.NewPlace(req)
	place.Source, place.ReadOnly = dir, true
	return place, req.Save(place)
}

// Release implements mount.Mounter. It is called once for each Mount, with the
// same place, however the task has ended.
func (*mymounter) Release(context.Context, *mount.Place) error { return nil }
