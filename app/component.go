package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/file"
)

// components returns what runs data components as cfg says.
func components(cfg *Config, opts *Options, logger *slog.Logger) *run.Runner {
	c := &cfg.Component
	return run.New(&run.Options{
		Storage: openStorage, DefaultStorage: c.Storage, Registry: c.Registry,
		Project: run.Project{
			ID: c.Project, Name: c.ProjectName, Stack: c.Stack, Branch: c.Branch, TokenID: c.TokenID, TokenDesc: c.TokenName,
			User: c.User, FileProvider: c.FileProvider, Features: c.Features,
		},
		Encoding: component.Encoding{EmptyLists: c.PHPEmptyArrays},
		NoLimits: !c.Limits, Progress: opts.Moved, Logger: logger,
	})
}

// openStorage opens a storage by its URL, or a folder.
func openStorage(_ context.Context, url, dir string) (storage.Storage, error) {
	path, ok := strings.CutPrefix(url, "file:")
	if !ok && strings.Contains(url, ":") {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: "storage", Kind: caisson.ErrUnsupported, Err: errors.New("use a folder")}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return file.Open(path, nil)
}
