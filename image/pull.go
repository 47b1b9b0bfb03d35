//go:build unix

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/allow"
)

// A remote is the puller of a Store.
type remote struct {
	dir     string
	limits  Limits
	sources Sources
	allowed *allow.List
}

var _ puller = (*remote)(nil)

// newPuller returns the puller of a store, whose limits are filled in. Errors:
// ErrInvalid for sources that make no sense.
func newPuller(opts *Options) (puller, error) {
	sources, err := opts.Sources.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkPolicies(&sources); err != nil {
		return nil, err
	}
	anywhere := len(sources.AllowFiles) == 1 && sources.AllowFiles[0] == "*"
	dirs := sources.AllowFiles
	if anywhere {
		dirs = nil
	}
	allowed, err := allow.New(dirs, anywhere)
	if err != nil {
		return nil, err
	}
	return &remote{dir: opts.Dir, limits: opts.Limits, sources: sources, allowed: allowed}, nil
}

// A pulling is one pull under way.
type pulling struct {
	remote   *remote
	req      *Request
	ref      *Reference // its path is absolute
	want     platform
	insecure insecure
	trust    *trust
	key      []byte // of the store
	access   string // who the blobs are for
	web      *web
	src      source
	blobs    *blobs
	claim    *claim
	tell     sync.Mutex
}

// errTotal says that the operator's time for a pull is over.
var errTotal = errors.New("it takes longer than is permitted")

// pull implements puller.
func (r *remote) pull(ctx context.Context, req *Request, blobs *blobs, claim *claim) (*pulled, error) {
	limited, cancel := context.WithTimeoutCause(ctx, r.sources.Total, errTotal)
	defer cancel()
	p, err := r.prepare(limited, req)
	if err != nil {
		return nil, r.failed(ctx, limited, req, err)
	}
	p.blobs, p.claim = blobs, claim
	done, err := p.run(limited)
	if err != nil {
		return nil, r.failed(ctx, limited, req, err)
	}
	return done, nil
}

// failed tells the end of the operator's time from other errors. ctx is the
// caller's, limited has that time.
func (r *remote) failed(ctx, limited context.Context, req *Request, err error) error {
	if ctx.Err() == nil && limited.Err() != nil && errors.Is(context.Cause(limited), errTotal) {
		err = &caisson.Error{Kind: caisson.ErrUnavailable, Err: fmt.Errorf("%w: %v", errTotal, r.sources.Total)}
	}
	return pullError(ctx, req, err)
}

// pullError says which image could not be had. ctx is the caller's.
func pullError(ctx context.Context, req *Request, err error) error {
	item := fmt.Sprintf("%q", shorten(req.Ref))
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", OpImage, item, ctx.Err())
	}
	kind := caisson.KindOf(err)
	var pass *passing
	if kind == caisson.ErrUnknown && errors.As(err, &pass) {
		kind = caisson.ErrUnavailable
	}
	if kind == caisson.ErrUnknown {
		return sorted(item, textOf(err))
	}
	var e *caisson.Error
	if errors.As(err, &e) && e == err && e.Op == OpImage && e.Item == item {
		return err
	}
	return &caisson.Error{Op: OpImage, Item: item, Kind: kind, Err: oneLine(textOf(err))}
}

// oneLine makes sure that an error, which may quote what a server says, is one
// line of printable text.
func oneLine(err error) error {
	text := err.Error()
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return err
	}
	text, _, _ = strings.Cut(text, "\n")
	return errors.New(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text))
}

// prepare reads the request and decides all that needs nobody outside.
func (r *remote) prepare(ctx context.Context, req *Request) (*pulling, error) {
	p := &pulling{remote: r, req: req}
	var err error
	if p.ref, err = r.reference(req); err != nil {
		return nil, err
	}
	if p.want, err = parsePlatform(req.Platform); err != nil {
		return nil, err
	}
	if p.insecure, err = r.insecure(req); err != nil {
		return nil, err
	}
	if p.trust, err = r.trust(req, p.ref, p.insecure); err != nil {
		return nil, err
	}
	if p.key, err = accessKey(ctx, r.dir); err != nil {
		return nil, sorted("the store", err)
	}
	p.access, err = p.accessOfRequest()
	return p, err
}

// reference returns what the request names.
func (r *remote) reference(req *Request) (*Reference, error) {
	ref, err := ParseReference(req.Ref)
	if err != nil {
		return nil, err
	}
	if req.hasCredentials() && ref.Scheme != SchemeRegistry {
		return nil, invalid("credentials are for registries, and this is none")
	}
	if req.hasCredentials() && req.IdentityToken == "" && (req.Username == "" || req.Password == "") {
		return nil, invalid("registry credentials need both a username and a password")
	}
	return ref.below(req.Dir)
}

// check implements puller.
func (r *remote) check(ctx context.Context, req *Request, known *known) (bool, error) {
	p, err := r.prepare(ctx, req)
	if err != nil {
		return false, pullError(ctx, req, err)
	}
	if p.ref.file() {
		return false, nil
	}
	// There may be a better one outside than one that fits somehow.
	have, err := parsePlatform(known.platform)
	if fit := p.want.fit(have); err != nil || fit < 0 || fit < exactFit && req.Pull != PullNever {
		return false, nil
	}
	permitted := false
	for _, access := range known.access {
		permitted = permitted || access == "" || access == p.access
	}
	if !permitted {
		return false, nil
	}
	ok, err := p.trust.knows(r.dir, p.ref, known.digest)
	return ok, pullErrorOrNil(ctx, req, err)
}

func pullErrorOrNil(ctx context.Context, req *Request, err error) error {
	if err == nil {
		return nil
	}
	return pullError(ctx, req, err)
}

// run brings the image.
func (p *pulling) run(ctx context.Context) (*pulled, error) {
	found, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := p.bring(ctx, found); err != nil {
		return nil, err
	}
	access := p.access
	if p.ref.file() {
		access = "" // whoever names the file is asked for it again
	}
	return &pulled{
		name: p.ref.String(), digest: found.doc.digest, platform: found.platform.String(), access: access, tags: p.src.tags(found.doc.digest),
	}, nil
}

// find returns the image that is meant, once it is known that it may be had.
// Without an error the source is open.
func (p *pulling) find(ctx context.Context) (found *candidate, err error) {
	p.web = p.remote.web(p.insecure, p.remote.hosts(p.req, p.ref))
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.src, err = p.remote.open(ctx, p); err != nil {
		return nil, err
	}
	// From here on everything is asked for by the digest of what came first.
	top, err := p.src.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if found, err = p.suits(ctx, top); err != nil {
		return nil, err
	}
	return found, p.trust.verify(ctx, p, top, found)
}

// suits returns what is meant of what a reference leads to, if it can be used.
func (p *pulling) suits(ctx context.Context, top *document) (*candidate, error) {
	switch {
	case p.req.module:
		return p.chooseModule(ctx, top)
	case p.req.machine:
		return p.chooseMachine(ctx, top)
	}
	found, err := p.choose(ctx, top)
	if err != nil {
		return nil, err
	}
	return found, p.checkManifest(found)
}

// close ends what find has opened.
func (p *pulling) close() {
	if p.src != nil {
		p.src.close()
	}
	p.web.close()
}

// bring fetches everything of an image that is not here.
func (p *pulling) bring(ctx context.Context, f *candidate) error {
	m := f.doc.image
	if err := p.claim.add(f.doc.digest, m.Config.Digest); err != nil {
		return err
	}
	for i := range m.Layers {
		if err := p.claim.add(m.Layers[i].Digest); err != nil {
			return err
		}
	}
	if err := p.blobs.write(m.Config.Digest, f.config, p.access); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.remote.sources.Parallel)
	seen := make(map[v1.Hash]bool)
	for i := range m.Layers {
		desc := &m.Layers[i]
		if !seen[desc.Digest] {
			seen[desc.Digest] = true
			group.Go(func() error { return p.layer(ctx, desc) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return p.blobs.write(f.doc.digest, f.doc.data, p.access)
}

// layer makes one layer be in the store and granted to the request.
func (p *pulling) layer(ctx context.Context, desc *v1.Descriptor) error {
	if err := p.reuse(ctx, desc); err != nil {
		return err
	}
	have := int64(0)
	get := &fetch{
		digest: desc.Digest, size: desc.Size, limit: int64(p.remote.limits.LayerBytes), access: p.access,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
			return p.src.blob(ctx, desc, offset)
		},
		tell: func(done int64) {
			have = max(have, done)
			p.progress(desc, done)
		},
	}
	err := p.remote.retry(ctx, p.remote.sources.Tries, func() int64 { return have }, func() error { return p.blobs.fetch(ctx, get) })
	if err != nil {
		return err
	}
	if origin := p.src.origin(); origin != "" {
		return p.blobs.grant(desc.Digest, accessOf(p.key, accessOrigin, origin))
	}
	return nil
}

// reuse grants a blob that is here to the request if the place that it came
// from gives it to the request as well. What another place says proves nothing:
// it may never have had the blob.
func (p *pulling) reuse(ctx context.Context, desc *v1.Descriptor) error {
	origin := p.src.origin()
	if origin == "" || p.blobs.size(desc.Digest) != desc.Size || p.blobs.granted(desc.Digest, p.access) {
		return nil
	}
	if !p.blobs.granted(desc.Digest, accessOf(p.key, accessOrigin, origin)) || !p.src.has(ctx, desc) {
		return nil
	}
	return p.blobs.grant(desc.Digest, p.access)
}

func (p *pulling) progress(desc *v1.Descriptor, done int64) {
	if p.req.Progress == nil {
		return
	}
	p.tell.Lock()
	defer p.tell.Unlock()
	p.req.Progress(Progress{Digest: desc.Digest.String(), Done: caisson.Bytes(done), Total: caisson.Bytes(desc.Size)})
}
