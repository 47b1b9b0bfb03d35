package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/component/seal"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/all"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/build"
)

// components returns what runs data components as cfg says.
func components(cfg *Config, opts *Options, images *image.Store, logger *slog.Logger) *run.Runner {
	c := &cfg.Component
	keys := seal.Open(c.Keys(cfg.State))
	o := &run.Options{
		Storage: openStorage, DefaultStorage: c.Storage, Registry: c.Registry,
		Project: run.Project{
			ID: c.Project, Name: c.ProjectName, Stack: c.Stack, Branch: c.Branch, TokenID: c.TokenID, TokenDesc: c.TokenName,
			User: c.User, URL: c.URL, FileProvider: c.FileProvider, Features: c.Features,
		},
		Keys: func(comp, configuration string) (run.Keys, error) {
			return keys.Box(seal.Scope{Project: c.Project, Component: comp, Configuration: configuration}, seal.Component)
		},
		Library: c.Library, StrictMapping: c.StrictMapping,
		Encoding: component.Encoding{EmptyLists: c.PHPEmptyArrays},
		NoLimits: !c.Limits, MemoryLimits: c.MemoryLimits, Progress: opts.Moved, Logger: logger,
		Build: func(ctx context.Context, b *component.Build, dir string, output io.Writer) (string, error) {
			return makeImage(ctx, images, b, dir, output)
		},
	}
	if c.TokenFile != "" {
		o.Project.Token = func() (string, error) { return readToken(c.TokenFile) }
	}
	if c.Vault != "" {
		o.Vault = func(u component.Unsealer) (map[string]string, []string, error) {
			return component.ReadVault(c.Vault, u)
		}
	}
	if c.Credentials != "" {
		o.Credentials = func(u component.Unsealer, id string) (*component.Value, error) {
			return component.ReadCredentials(c.Credentials, id, u)
		}
	}
	return run.New(o)
}

// maxToken is the most bytes of a file with a token.
const maxToken = 64 << 10

// readToken reads the operator's file with a token, without the end of its line.
func readToken(path string) (string, error) {
	fail := func(err error) (string, error) {
		return "", &caisson.Error{Op: caisson.OpConfig, Item: "component.token_file", Kind: caisson.ErrInvalid, Err: err}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return fail(err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return fail(errors.New("it is empty"))
	}
	return token, nil
}

// makeImage builds the image of a component, unless it is there. Its files are
// put into dir.
func makeImage(ctx context.Context, images *image.Store, b *component.Build, dir string, output io.Writer) (string, error) {
	if !b.Anew {
		_, err := images.Get(ctx, &image.Request{Ref: b.Name, Pull: image.PullNever, Trusted: true})
		if err == nil || !errors.Is(err, caisson.ErrNotFound) {
			return b.Name, err
		}
	}
	for name, data := range b.Files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return "", err
		}
	}
	_, _, err := build.Run(ctx, images, &build.Options{Source: dir, Tags: []string{b.Name}, NoCache: b.Anew, Output: output})
	return b.Name, err
}

// openStorage opens a storage by its URL, or a folder.
func openStorage(url, dir string, getenv func(string) string) (storage.Storage, error) {
	return all.Open(withPassword(url, getenv), &all.Options{Dir: dir, Getenv: getenv})
}

// withPassword gives the URL of a database the password that stands in a
// variable: the library looks for it in this process only.
func withPassword(text string, getenv func(string) string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return text
	}
	password := getenv("PGPASSWORD")
	if _, own := u.User.Password(); own || password == "" {
		return text
	}
	name := u.User.Username()
	if name == "" {
		name = getenv("PGUSER")
	}
	if name == "" {
		return text
	}
	u.User = url.UserPassword(name, password)
	return u.String()
}
