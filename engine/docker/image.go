package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Pull policies, as in caisson.Registry.
const (
	pullMissing = "missing"
	pullAlways  = "always"
	pullNever   = "never"
)

// An image is what a container is made from.
type image struct {
	id         string
	entrypoint []string
	cmd        []string
	env        []string
	workdir    string
	user       string
	stopSignal int
	volumes    bool // it has volumes of its own
}

// images are those of the daemon. Pulls run at once, but only one of the same
// image with the same credentials.
type images struct {
	daemon *daemon
	opts   *Options
	record *record

	mu     sync.Mutex
	pulls  map[string]*pull
	people map[string]accounts // by id
	loaded map[string]string   // ids by archive
}

// A pull is under way, for one caller or several.
type pull struct {
	done    chan struct{}
	err     error
	waiting int
	cancel  context.CancelFunc
}

func newImages(d *daemon, o *Options) *images {
	return &images{
		daemon: d, opts: o, record: newRecord(o.State), pulls: map[string]*pull{},
		people: map[string]accounts{}, loaded: map[string]string{},
	}
}

// get returns an image that is there, and pulls it if need be. Password is the
// value of the secret that reg names.
//
// Errors: ErrNotFound if there is none; ErrDenied if the registry or an earlier
// task's credentials say so; ErrInvalid if name is none; ErrUnavailable.
func (m *images) get(ctx context.Context, name string, reg *caisson.Registry, password string) (*image, error) {
	if path, ok := strings.CutPrefix(name, "docker-archive:"); ok {
		return m.load(ctx, path)
	}
	ref, err := parse(name)
	if err != nil {
		return nil, err
	}
	creds, err := m.credentials(ctx, ref, reg, password)
	if err != nil {
		return nil, err
	}
	policy := pullMissing
	if reg != nil && reg.Pull != "" {
		policy = reg.Pull
	}
	item := "image " + ref.familiar
	if policy != pullAlways {
		img, err := m.inspect(ctx, ref.name)
		if err == nil && m.record.mayUse(img.id, creds.key()) {
			m.record.used(img.id)
			return img, nil
		}
		if err != nil && !notFound(err) {
			return nil, err
		}
		if policy == pullNever || ref.named == nil {
			if err == nil {
				return nil, &caisson.Error{
					Item: item, Kind: caisson.ErrDenied,
					Err: errors.New("it was pulled with another task's credentials; give this task the registry's"),
				}
			}
			return nil, &caisson.Error{Item: item, Kind: caisson.ErrNotFound, Err: errors.New("the daemon does not have it, and pull is never")}
		}
	}
	if ref.named == nil {
		return nil, &caisson.Error{Item: item, Kind: caisson.ErrInvalid, Err: errors.New("an id can't be pulled; name a repository")}
	}
	if err := m.pull(ctx, ref, creds); err != nil {
		return nil, err
	}
	img, err := m.inspect(ctx, ref.name)
	if err != nil {
		return nil, err
	}
	m.record.used(img.id)
	return img, nil
}

// A ref is an image's name.
type ref struct {
	named    reference.Named // nil: an id
	name     string          // for the daemon
	familiar string          // for people
}

var imageID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)

// parse reads an image's name, or its id.
func parse(name string) (*ref, error) {
	for _, other := range []string{"oci:", "oci-archive:", "https:", "http:", "file:"} {
		if strings.HasPrefix(name, other) {
			return nil, &caisson.Error{
				Op: caisson.OpCreate, Item: "image", Kind: caisson.ErrUnsupported,
				Err: fmt.Errorf("%q: a daemon takes names of registries and docker-archive: files; use the engine oci for %s", name, other),
			}
		}
	}
	name = strings.TrimPrefix(name, "docker://")
	if imageID.MatchString(name) {
		return &ref{name: name, familiar: name}, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: "image", Kind: caisson.ErrInvalid, Err: fmt.Errorf("%q: %w", name, err)}
	}
	named = reference.TagNameOnly(named)
	return &ref{named: named, name: named.String(), familiar: reference.FamiliarString(named)}, nil
}

// inspect returns an image that the daemon has.
func (m *images) inspect(ctx context.Context, name string) (*image, error) {
	r, err := call(ctx, "image "+name, func(ctx context.Context) (client.ImageInspectResult, error) {
		return m.daemon.ImageInspect(ctx, name)
	})
	if err != nil {
		return nil, err
	}
	img := &image{id: r.ID}
	if c := r.Config; c != nil {
		img.entrypoint, img.cmd, img.env, img.workdir, img.user = c.Entrypoint, c.Cmd, c.Env, c.WorkingDir, c.User
		img.volumes = len(c.Volumes) > 0
		if n, err := caisson.ParseSignal(c.StopSignal); err == nil && engine.ValidSignal(n) {
			img.stopSignal = n
		}
	}
	return img, nil
}

// pull pulls an image, or waits for somebody who does. It ends when nobody wants
// it any more.
func (m *images) pull(ctx context.Context, r *ref, creds *credentials) error {
	key := r.name + "\x00" + creds.key()
	m.mu.Lock()
	p := m.pulls[key]
	if p == nil {
		pulling, cancel := context.WithCancel(context.WithoutCancel(ctx))
		p = &pull{done: make(chan struct{}), cancel: cancel}
		m.pulls[key] = p
		go func() {
			p.err = m.fetch(pulling, r, creds)
			m.mu.Lock()
			if m.pulls[key] == p {
				delete(m.pulls, key)
			}
			m.mu.Unlock()
			close(p.done)
			cancel()
		}()
	}
	p.waiting++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if p.waiting--; p.waiting == 0 {
			p.cancel()
			if m.pulls[key] == p {
				delete(m.pulls, key)
			}
		}
	}()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch has the daemon pull an image, and notes who may use it.
func (m *images) fetch(ctx context.Context, r *ref, creds *credentials) error {
	item := "image " + r.familiar
	auth, err := creds.encode()
	if err != nil {
		return err
	}
	before, _ := m.inspect(ctx, r.name)
	stream, err := m.daemon.ImagePull(ctx, r.name, client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = stream.Wait(ctx)
		stream.Close()
	}
	if err != nil {
		return sorted(ctx, item, err)
	}
	img, err := m.inspect(ctx, r.name)
	if err != nil {
		return err
	}
	if before != nil && before.id == img.id {
		// What was there without having been pulled for a task is the operator's.
		if known, err := m.record.read(img.id); known == nil {
			return err
		}
	}
	if err := m.record.pulled(img.id, creds.key()); err != nil {
		return err
	}
	if m.opts.Verify {
		return m.verify(ctx, item, img.id)
	}
	return nil
}

// verify tries whether a container can be made of an image, and removes one that
// is damaged.
func (m *images) verify(ctx context.Context, item, id string) error {
	name, err := m.look(ctx, id)
	if err == nil {
		return m.daemon.remove(ctx, name)
	}
	_, removeErr := call(ctx, item, func(ctx context.Context) (client.ImageRemoveResult, error) {
		return m.daemon.ImageRemove(ctx, id, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	})
	return errors.Join(&caisson.Error{Item: item, Kind: caisson.ErrUnavailable, Err: fmt.Errorf("it is damaged and was removed: %w", err)}, removeErr)
}

// loadedID is how a daemon tells what it has loaded.
var loadedID = regexp.MustCompile(`Loaded image(?: ID)?: *(\S+)`)

// load loads an archive made by `docker save` with one image in it, unless that
// was done before.
func (m *images) load(ctx context.Context, path string) (*image, error) {
	item := "image docker-archive:" + path
	fail := func(kind caisson.Kind, err error) (*image, error) {
		return nil, &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: kind, Err: err}
	}
	if !filepath.IsAbs(path) {
		return fail(caisson.ErrInvalid, errors.New("the path is not absolute"))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fail(caisson.ErrNotFound, errors.New("there is no such file"))
	}
	if err != nil {
		return fail(caisson.ErrDenied, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return fail(caisson.ErrInvalid, errors.New("it is no file"))
	}
	key := fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano())
	m.mu.Lock()
	id := m.loaded[key]
	m.mu.Unlock()
	if id != "" {
		if img, err := m.inspect(ctx, id); err == nil {
			m.record.used(id)
			return img, nil
		}
	}
	said, err := m.send(ctx, item, f)
	if err != nil {
		return nil, err
	}
	names := slices.Compact(said)
	if len(names) != 1 {
		return fail(caisson.ErrInvalid, fmt.Errorf("it has %d images; a task runs an archive of one", len(names)))
	}
	img, err := m.inspect(ctx, names[0])
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.loaded[key] = img.id
	m.mu.Unlock()
	return img, m.record.pulled(img.id, "")
}

// send sends an archive to the daemon and returns what it calls what was in it.
func (m *images) send(ctx context.Context, item string, archive io.Reader) ([]string, error) {
	r, err := m.daemon.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return nil, sorted(ctx, item, err)
	}
	defer r.Close()
	var names []string
	for dec := json.NewDecoder(io.LimitReader(r, 1<<20)); ; {
		var line struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		err := dec.Decode(&line)
		if err == io.EOF {
			return names, nil
		}
		if err == nil && line.Error != "" {
			return nil, &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrInvalid, Err: said(errors.New(line.Error))}
		}
		if err != nil {
			return nil, sorted(ctx, item, err)
		}
		for _, match := range loadedID.FindAllStringSubmatch(line.Stream, -1) {
			names = append(names, match[1])
		}
	}
}

// encode returns what the daemon is given for the registry.
func (c *credentials) encode() (string, error) {
	if c == nil {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: c.username, Password: c.password, IdentityToken: c.token, ServerAddress: c.server,
	})
}
