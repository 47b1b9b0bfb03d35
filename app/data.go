package app

import (
	"github.com/caissonrun/caisson/internal/state"
	"github.com/caissonrun/caisson/mount"
	"github.com/caissonrun/caisson/mount/bind"
	"github.com/caissonrun/caisson/mount/cache"
	"github.com/caissonrun/caisson/mount/component"
	"github.com/caissonrun/caisson/mount/tmpfs"
	"github.com/caissonrun/caisson/mount/volume"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/file"
	"github.com/caissonrun/caisson/stage/git"
	"github.com/caissonrun/caisson/stage/http"
	"github.com/caissonrun/caisson/stage/text"
)

// mounters returns Caisson's own mounters and those of opts.
func mounters(cfg *Config, opts *Options, folder *state.Folder, volumes *volume.Store) ([]mount.Mounter, error) {
	binds, err := bind.New(&bind.Options{
		Allow: cfg.Mount.Bind.Allow,
		// A task that could see the state folder could read other tasks' files.
		Deny: []string{cfg.State, cfg.Runtime},
	})
	if err != nil {
		return nil, err
	}
	caches, err := cache.New(folder.Join("caches"))
	if err != nil {
		return nil, err
	}
	// The executor refuses two that would serve the same type and engine.
	return append([]mount.Mounter{volume.New(volumes), caches, binds, tmpfs.New(), component.New()}, opts.Mounters...), nil
}

// stagers returns Caisson's own stagers and those of opts.
func stagers(cfg *Config, opts *Options) ([]stage.Stager, error) {
	files, err := file.New(&file.Options{Allow: cfg.Stage.File.Allow})
	if err != nil {
		return nil, err
	}
	repositories, err := git.New(&git.Options{Allow: cfg.Stage.File.Allow, AllowPrivate: cfg.Stage.HTTP.AllowPrivate})
	if err != nil {
		return nil, err
	}
	web, err := http.New(&http.Options{AllowPrivate: cfg.Stage.HTTP.AllowPrivate})
	if err != nil {
		return nil, err
	}
	list := append([]stage.Stager{files, text.New(), repositories, web}, opts.Stagers...)
	seen := map[string]bool{}
	for _, s := range list {
		for _, scheme := range s.Schemes() {
			if seen[scheme] {
				return nil, duplicate("scheme", scheme)
			}
			seen[scheme] = true
		}
	}
	return list, nil
}
