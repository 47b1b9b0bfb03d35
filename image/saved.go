//go:build unix

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
)

// savedIndex is the file that says what is in an archive of docker save.
const savedIndex = "manifest.json"

// saved is the source of an image in an archive that docker save made. It has
// no manifest: one is made of what the archive says, and every part of it is
// checked against that like any other.
type saved struct {
	unsigned
	files  files
	ref    *Reference
	limits *Limits
	// have reports whether a blob of that size is here for the request.
	have  func(digest v1.Hash, size int64) bool
	entry *savedEntry
	parts map[v1.Hash]string // name of the file with a blob
}

var _ source = (*saved)(nil)

// saved returns the source of an archive of docker save.
func (p *pulling) saved(f files) *saved {
	have := func(digest v1.Hash, size int64) bool {
		return p.blobs.size(digest) == size && p.blobs.granted(digest, p.access)
	}
	return &saved{files: f, ref: p.ref, limits: &p.remote.limits, have: have}
}

// savedEntry is an image in it.
type savedEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (s *saved) close() { s.files.close() }

// resolve implements source.
func (s *saved) resolve(ctx context.Context) (*document, error) {
	data, err := readPart(s.files, savedIndex, maxDocument)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, invalid("not an archive of docker save: %w", err)
	}
	if err != nil {
		return nil, err
	}
	var entries []savedEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, invalid("%s can't be read: %v", savedIndex, err)
	}
	if s.entry, err = s.pick(entries); err != nil {
		return nil, err
	}
	return s.compose(ctx)
}

// pick returns the one image that is asked for.
func (s *saved) pick(entries []savedEntry) (*savedEntry, error) {
	var found []*savedEntry
	var all []string
	for i := range entries {
		tags := entries[i].RepoTags
		all = append(all, tags...)
		if s.ref.Tag == "" || slices.ContainsFunc(tags, func(name string) bool { return tagIs(name, s.ref.Tag) }) {
			found = append(found, &entries[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, noTag(s.ref.Tag, all)
	case 1:
		return found[0], nil
	}
	return nil, invalid("there are several images in it: name one by its tag, of %q", all[:min(len(all), 30)])
}

// compose makes the manifest.
func (s *saved) compose(ctx context.Context) (*document, error) {
	if len(s.entry.Layers) > s.limits.Layers {
		return nil, invalid("the image has %d layers, and may have %d", len(s.entry.Layers), s.limits.Layers)
	}
	config, err := readPart(s.files, s.entry.Config, int64(s.limits.ConfigBytes))
	if err != nil {
		return nil, err
	}
	var file struct {
		RootFS struct {
			DiffIDs []v1.Hash `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return nil, invalid("the image's configuration can't be read: %v", err)
	}
	if len(file.RootFS.DiffIDs) != len(s.entry.Layers) {
		return nil, invalid("the archive has %d layers, and the image's configuration %d", len(s.entry.Layers), len(file.RootFS.DiffIDs))
	}
	m := &v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.DockerManifestSchema2,
		Config:        v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(config)), Digest: digestOf(config)},
	}
	s.parts = map[v1.Hash]string{m.Config.Digest: s.entry.Config}
	for i, name := range s.entry.Layers {
		desc, err := s.layer(ctx, name, file.RootFS.DiffIDs[i])
		if err != nil {
			return nil, err
		}
		s.parts[desc.Digest] = name
		m.Layers = append(m.Layers, *desc)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, invalid("the archive: %v", err)
	}
	return decode(data, false)
}

// layer describes a layer's file. One that is not compressed has the digest
// that the configuration says; others are read to know theirs, unless they are
// called by the digest of what this file of the host has brought before.
func (s *saved) layer(ctx context.Context, name string, diffID v1.Hash) (*v1.Descriptor, error) {
	p, err := s.files.open(name)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	desc := &v1.Descriptor{MediaType: types.DockerUncompressedLayer, Size: p.size, Digest: diffID}
	var magic [4]byte
	n, err := io.ReadFull(p, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	switch start := magic[:n]; {
	case bytes.HasPrefix(start, gzipMagic):
		desc.MediaType = types.DockerLayer
	case bytes.HasPrefix(start, zstdMagic):
		desc.MediaType = types.OCILayerZStd
	default:
		return desc, nil
	}
	stem, _, _ := strings.Cut(path.Base(name), ".")
	if called, err := parseDigest("sha256:" + stem); err == nil && s.have(called, p.size) {
		desc.Digest = called
		return desc, nil
	}
	sum := sha256.New()
	sum.Write(magic[:n])
	if _, err := io.Copy(sum, &untilDone{ctx, p}); err != nil {
		return nil, err
	}
	desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return desc, nil
}

// An untilDone is a reader that fails when its context ends.
type untilDone struct {
	ctx context.Context
	rd  io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.rd.Read(p)
}

// manifest implements source: there is one only, which resolve returns.
func (s *saved) manifest(context.Context, v1.Hash) (*document, error) {
	return nil, notFound("an archive of docker save has no manifests")
}

// blob implements source.
func (s *saved) blob(_ context.Context, desc *v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	name, ok := s.parts[desc.Digest]
	if !ok {
		return nil, 0, notFound("there is no %s in the archive", desc.Digest)
	}
	p, err := s.files.open(name)
	if err != nil {
		return nil, 0, err
	}
	return p.seek(offset, desc.Size)
}

// tags implements source.
func (s *saved) tags(v1.Hash) []string { return s.entry.RepoTags }
