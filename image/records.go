//go:build unix

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/crash"
)

const (
	namesDir = "names"
	jsonEnd  = ".json"
)

// record is what a file in names holds. When the image was used for the last
// time is the file's own time, because that need not survive a crash.
type record struct {
	Version  int       `json:"version"`
	Name     string    `json:"name"`
	Digest   string    `json:"digest"`
	Platform string    `json:"platform"`
	Access   []string  `json:"access"` // of all pulls that gave it
	Pulled   time.Time `json:"pulled"`

	used time.Time
}

// recordVersion is the version of records that this code reads and writes.
const recordVersion = 1

func (r *record) hash() v1.Hash {
	hash, _ := v1.NewHash(r.Digest) // a wrong one is the digest of no blob
	return hash
}

func (r *record) private() bool { return !slices.Contains(r.Access, "") }

// fileOf returns the name of a file about something that has any name.
func fileOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + jsonEnd
}

func (s *Store) recordPath(name string) string { return s.path(namesDir, fileOf(name)) }

// record returns what is under a name. Errors: ErrNotFound.
func (s *Store) record(name string) (*record, error) {
	r, err := readRecord(s.recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem(name, caisson.ErrNotFound, errors.New("no such image in the store"))
	}
	return r, sorted(name, err)
}

func readRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version > recordVersion {
		return nil, problem(path, caisson.ErrUnsupported, errors.New("written by a newer program"))
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r.used = info.ModTime()
	return r, nil
}

// records returns all records by name.
func (s *Store) records() ([]*record, error) {
	entries, err := os.ReadDir(s.path(namesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, sorted(s.path(namesDir), err)
	}
	var list []*record
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), jsonEnd) || atomicfile.IsTemp(e.Name()) {
			continue
		}
		r, err := readRecord(filepath.Join(s.path(namesDir), e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, sorted(e.Name(), err)
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *record) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// touch notes that a name was used.
func (s *Store) touch(name string) {
	now := s.now()
	_ = os.Chtimes(s.recordPath(name), now, now)
}

// remember puts what a pull found under a name. The pull's claim still holds.
func (s *Store) remember(ctx context.Context, name string, p *pulled) error {
	guard, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer guard.Release()
	r := &record{
		Version: recordVersion, Name: name, Digest: p.digest.String(), Platform: p.platform,
		Access: []string{p.access}, Pulled: s.now().UTC(),
	}
	if old, err := s.record(name); err == nil && old.Digest == r.Digest {
		both := map[string]bool{p.access: true}
		for _, access := range old.Access {
			both[access] = true
		}
		r.Access = slices.Sorted(maps.Keys(both))
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.path(namesDir), 0o700); err != nil {
		return sorted(name, err)
	}
	crash.Point(crash.RecordBefore)
	if err := atomicfile.Write(s.recordPath(name), append(data, '\n'), 0o600); err != nil {
		return sorted(name, err)
	}
	crash.Point(crash.RecordAfter)
	return nil
}

// load reads an image that is in the store.
func (s *Store) load(r *record) (*Image, error) {
	img, err := s.loadDigest(r.hash())
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", r.Name, err)
	}
	img.Name, img.Ref, img.Platform = r.Name, r.Name, r.Platform
	return img, nil
}

func (s *Store) loadDigest(digest v1.Hash) (*Image, error) {
	limit := int64(s.opts.Limits.ConfigBytes)
	data, err := s.blobs.read(digest, limit)
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil, problem(digest.String(), caisson.ErrInvalid, fmt.Errorf("not a manifest: %w", err))
	}
	if data, err = s.blobs.read(manifest.Config.Digest, limit); err != nil {
		return nil, err
	}
	config := &v1.ConfigFile{}
	if isImageConfig(manifest.Config.MediaType) {
		config, err = v1.ParseConfigFile(bytes.NewReader(data))
	}
	if err != nil {
		return nil, problem(digest.String(), caisson.ErrInvalid, fmt.Errorf("not an image's configuration: %w", err))
	}
	// Of an artifact nothing is unpacked but by who knows what it is.
	if len(manifest.Layers) != len(config.RootFS.DiffIDs) && isImageConfig(manifest.Config.MediaType) {
		return nil, problem(digest.String(), caisson.ErrInvalid, fmt.Errorf(
			"%d layers, but its configuration has %d", len(manifest.Layers), len(config.RootFS.DiffIDs)))
	}
	if len(manifest.Layers) > s.opts.Limits.Layers {
		return nil, problem(digest.String(), caisson.ErrInvalid, fmt.Errorf("more than %d layers, the limit of [image]", s.opts.Limits.Layers))
	}
	img := &Image{
		Digest: digest.String(), ID: manifest.Config.Digest.String(), Layers: len(manifest.Layers),
		Created: config.Created.Time, Config: configOf(&config.Config), manifest: manifest, diffIDs: config.RootFS.DiffIDs,
	}
	for i := range manifest.Layers {
		size := s.blobs.size(manifest.Layers[i].Digest)
		if size < 0 {
			return nil, problem(digest.String(), caisson.ErrNotFound, fmt.Errorf("its layer %s is not in the store", shortDigest(manifest.Layers[i].Digest)))
		}
		img.Size += caisson.Bytes(size)
	}
	return img, nil
}

func configOf(c *v1.Config) Config {
	return Config{
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Workdir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
		Volumes: slices.Sorted(maps.Keys(c.Volumes)), ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
		Labels: c.Labels, Shell: c.Shell,
	}
}

// digestsOf returns all blobs of an image, as far as they are known.
func (s *Store) digestsOf(manifest v1.Hash) []string {
	words := []string{manifest.Hex}
	data, err := s.blobs.read(manifest, int64(s.opts.Limits.ConfigBytes))
	if err != nil {
		return words
	}
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return words
	}
	words = append(words, m.Config.Digest.Hex)
	for i := range m.Layers {
		words = append(words, m.Layers[i].Digest.Hex)
	}
	return append(words, treeKeys(m)...)
}
