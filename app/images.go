package app

import (
	"crypto/x509"
	"errors"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/state"
)

// images returns the store of images that cfg asks for.
func images(cfg *config.Image, folder *state.Folder) (*image.Store, error) {
	roots, err := certificates(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	policies := make([]image.Policy, len(cfg.Policies))
	for i, p := range cfg.Policies {
		policies[i] = image.Policy{Prefix: p.Prefix, Action: image.Action(p.Action), Keys: p.Keys}
	}
	return image.Open(&image.Options{
		Dir:   folder.Join("images"),
		SetID: cfg.SetID, NoOverlay: cfg.NoOverlay,
		Limits: image.Limits{
			LayerBytes: cfg.MaxLayer, Bytes: cfg.MaxSize, Entries: cfg.MaxEntries, Depth: cfg.MaxDepth, Ratio: cfg.MaxRatio,
		},
		GC: image.GCOptions{MaxAge: cfg.GCAge.Std(), MaxBytes: cfg.GCKeep, MinFree: cfg.GCFree},
		Sources: image.Sources{
			HTTP: cfg.HTTP, SkipTLS: cfg.SkipTLS, RootCAs: roots, Mirrors: cfg.Mirrors, AuthFile: cfg.AuthFile,
			Policies: policies, KeyDir: cfg.KeyDir, RequireSignatures: cfg.RequireSignatures,
			AllowInsecure: cfg.AllowInsecure, AllowFiles: cfg.AllowFiles, AllowPrivate: cfg.AllowPrivate,
			Parallel: cfg.Parallel,
		},
	})
}

// certificates returns the system's certificates and those of a file; nil if
// there is none.
func certificates(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	wrong := func(kind caisson.Kind, err error) error {
		return &caisson.Error{Op: caisson.OpConfig, Item: "image.ca_file", Kind: kind, Err: err}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, wrong(caisson.ErrNotFound, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, wrong(caisson.ErrInvalid, errors.New(path+": no certificate in PEM is in it"))
	}
	return pool, nil
}
