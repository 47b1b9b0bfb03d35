//go:build unix

package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/caissonrun/caisson"
)

const (
	// MaxModule is the most bytes of a WebAssembly module.
	MaxModule = 256 << 20
	// maxModuleTar is the most bytes that a layer with a module in it may become.
	maxModuleTar = 2 * MaxModule
	// modulePlatform is what a module runs on, as images say it.
	modulePlatform = "wasi/wasm"
	moduleArch     = "wasm"
	moduleSuffix   = ".wasm"
)

// moduleTypes are the kinds of layers that are a module as they are: the first
// is what is kept here under.
var moduleTypes = []types.MediaType{
	"application/wasm", "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm",
}

// errSeveral says that it is not clear which module is meant.
var errSeveral = errors.New("it has several files that end in .wasm, and its entrypoint names none")

// Module brings a WebAssembly module from a registry or a folder of this host
// and writes it to a new file. It is the one layer of an artifact, or the file in
// the one layer of an image that its entrypoint names or that alone ends in
// .wasm. The artifact stays in the store as an image does, and policies,
// signatures and credentials are those of images. It returns the digest of the
// manifest.
//
// Errors: as Get; ErrUnsupported for an artifact that is no module.
func (s *Store) Module(ctx context.Context, req *Request, file string) (digest string, err error) {
	own := *req
	own.Platform, own.module = modulePlatform, true
	for try := 0; ; try++ {
		img, err := s.Get(ctx, &own)
		if err != nil {
			return "", err
		}
		err = s.extract(ctx, img, file)
		// It may have been collected, or found damaged, since it was looked for.
		if errors.Is(err, caisson.ErrNotFound) && try == 0 {
			continue
		}
		if err != nil {
			return "", pullError(ctx, req, err)
		}
		return img.Digest, nil
	}
}

// chooseModule returns the manifest with the module of what a reference leads
// to.
func (p *pulling) chooseModule(ctx context.Context, doc *document) (*candidate, error) {
	for depth := 0; doc.index != nil; depth++ {
		if depth >= maxIndexDepth {
			return nil, invalid("indexes lead to indexes more than %d deep", maxIndexDepth)
		}
		desc, err := moduleEntry(doc.index)
		if err != nil {
			return nil, err
		}
		if doc, err = p.src.manifest(ctx, desc.Digest); err != nil {
			return nil, err
		}
	}
	if err := p.checkModule(doc.image); err != nil {
		return nil, err
	}
	config, err := p.small(ctx, &doc.image.Config, int64(p.remote.limits.ConfigBytes))
	if err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	return &candidate{doc: doc, config: config, platform: p.want}, nil
}

// moduleEntry returns the entry of an index that is a module: one that says so,
// or else the only one that says nothing.
func moduleEntry(index *v1.IndexManifest) (*v1.Descriptor, error) {
	var silent []*v1.Descriptor
	var seen []platform
	for i := range index.Manifests {
		desc := &index.Manifests[i]
		if _, err := parseDigest(desc.Digest.String()); err != nil {
			return nil, invalid("the index: %w", err)
		}
		switch {
		case desc.Annotations["vnd.docker.reference.type"] != "":
		case desc.Platform == nil || desc.Platform.Architecture == "":
			silent = append(silent, desc)
		case desc.Platform.Architecture == moduleArch:
			return desc, nil
		default:
			seen = append(seen, newPlatform(desc.Platform.OS, desc.Platform.Architecture, desc.Platform.Variant))
		}
	}
	if len(silent) != 1 {
		want, _ := parsePlatform(modulePlatform)
		return nil, noPlatform(want, seen)
	}
	return silent[0], nil
}

// checkModule refuses what has no module in it, before any of it is fetched.
func (p *pulling) checkModule(m *v1.Manifest) error {
	if len(m.Layers) != 1 {
		return unsupported("it has %d layers, and a module is one", len(m.Layers))
	}
	l := &m.Layers[0]
	if _, err := parseDigest(l.Digest.String()); err != nil {
		return invalid("its layer: %w", err)
	}
	inImage := slices.Contains(layerTypes, l.MediaType) && isImageConfig(m.Config.MediaType)
	switch {
	case !l.MediaType.IsDistributable():
		return &caisson.Error{Kind: caisson.ErrUnsupported, Err: errForeign}
	case !inImage && !slices.Contains(moduleTypes, l.MediaType):
		return unsupported("its layer is of type %q, and not a module's", shorten(string(l.MediaType)))
	case l.Size < 0 || l.Size > MaxModule:
		return invalid("its layer has %d bytes, and may have %d", l.Size, int64(MaxModule))
	}
	return nil
}

// isImageConfig reports whether a configuration is that of an image.
func isImageConfig(kind types.MediaType) bool {
	return kind == types.OCIConfigJSON || kind == types.DockerConfigJSON
}

// extract writes the module of an artifact, or of an image, to a new file.
func (s *Store) extract(ctx context.Context, img *Image, file string) (err error) {
	desc := &img.manifest.Layers[0]
	blob, err := s.blobs.open(desc.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			os.Remove(file)
		}
	}()
	sum := sha256.New()
	rd := io.TeeReader(&untilDone{ctx, blob}, sum)
	if slices.Contains(moduleTypes, desc.MediaType) {
		err = copyModule(out, rd)
	} else {
		err = unpackModule(out, rd, &img.Config)
	}
	// What is left of the blob belongs to its sum as well.
	if _, rest := io.Copy(io.Discard, rd); rest != nil {
		return rest
	}
	if hex.EncodeToString(sum.Sum(nil)) != desc.Digest.Hex {
		return s.blobs.dropDamaged(desc.Digest)
	}
	return err
}

// copyModule copies as much as a module may have.
func copyModule(out io.Writer, rd io.Reader) error {
	n, err := io.Copy(out, io.LimitReader(rd, MaxModule+1))
	if err == nil && n > MaxModule {
		err = invalid("the module has more than %d bytes", int64(MaxModule))
	}
	return err
}

// unpackModule finds the module in an image's layer.
func unpackModule(out io.Writer, rd io.Reader, config *Config) error {
	plain, err := plainTar(rd)
	if err != nil {
		return err
	}
	defer plain.Close()
	bounded := &io.LimitedReader{R: plain, N: maxModuleTar}
	want := moduleName(config)
	found := false
	for tr := tar.NewReader(bounded); ; {
		header, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF) && found:
			return nil
		case errors.Is(err, io.EOF):
			return notFound("there is no file %q in its layer", "*"+want)
		case err != nil && bounded.N == 0:
			return invalid("its layer becomes more than %d bytes", int64(maxModuleTar))
		case err != nil:
			return invalid("its layer is damaged: %w", err)
		}
		name := path.Clean("/" + header.Name)
		if header.Typeflag != tar.TypeReg || !strings.HasSuffix(name, want) {
			continue
		}
		if found {
			return invalid("%w", errSeveral)
		}
		if err := copyModule(out, tr); err != nil {
			return err
		}
		found = true
	}
}

// moduleName is how the path of an image's module ends: as its entrypoint says,
// or as all modules do.
func moduleName(config *Config) string {
	for _, argv := range [][]string{config.Entrypoint, config.Cmd} {
		if len(argv) > 0 && strings.HasSuffix(argv[0], moduleSuffix) {
			return path.Join("/", config.Workdir, argv[0])
		}
	}
	return moduleSuffix
}

// plainTar returns what is in a layer, however it is compressed.
func plainTar(rd io.Reader) (io.ReadCloser, error) {
	start := make([]byte, len(zstdMagic))
	n, err := io.ReadFull(rd, start)
	if err != nil {
		return nil, invalid("its layer is damaged: %w", err)
	}
	whole := io.MultiReader(strings.NewReader(string(start[:n])), rd)
	switch {
	case strings.HasPrefix(string(start), string(gzipMagic)):
		plain, err := gzip.NewReader(whole)
		if err != nil {
			return nil, invalid("its layer is damaged: %w", err)
		}
		return plain, nil
	case string(start) == string(zstdMagic):
		decoder, err := zstd.NewReader(whole, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, invalid("its layer is damaged: %w", err)
		}
		return decoder.IOReadCloser(), nil
	}
	return io.NopCloser(whole), nil
}

// PermitModule applies the operator's policies to a module that somebody else
// is to fetch from a web server. A policy that asks for a signature refuses it:
// files have none.
//
// Errors: ErrInvalid for what is no URL; ErrDenied.
func (s *Store) PermitModule(req *Request) error {
	ref, err := webModule(req.Ref)
	if err != nil {
		return err
	}
	r, ok := s.puller.(*remote)
	if !ok {
		return nil
	}
	_, err = r.trust(req, ref, insecure{})
	return pullErrorOrNil(context.Background(), req, err)
}

// webModule reads the URL of a module.
func webModule(text string) (*Reference, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, problem("module", caisson.ErrInvalid, errors.New("not a URL"))
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return &Reference{Scheme: SchemeWeb, URL: u.String()}, nil
}

// moduleRecord is the name of a module of a web server in the store.
func moduleRecord(ref, sum string) (string, error) {
	web, err := webModule(ref)
	if err != nil {
		return "", err
	}
	web.Digest = "sha256:" + sum
	if _, err := parseDigest(web.Digest); err != nil {
		return "", problem("module", caisson.ErrInvalid, err)
	}
	return web.String(), nil
}

// KeptModule writes a module to a new file that KeepModule was given under the
// same URL and digest.
//
// Errors: ErrNotFound if it is not here.
func (s *Store) KeptModule(ctx context.Context, ref, sum, file string) error {
	name, err := moduleRecord(ref, sum)
	if err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	r, err := s.record(name)
	if err != nil {
		return err
	}
	img, err := s.load(r)
	if err != nil {
		return err
	}
	s.touch(name)
	return s.extract(ctx, img, file)
}

// KeepModule keeps the module in a file, which came from a web server and has
// the digest, until it is collected as images are. It is kept as an artifact
// would be.
func (s *Store) KeepModule(ctx context.Context, ref, sum, file string) error {
	name, err := moduleRecord(ref, sum)
	if err != nil {
		return err
	}
	return s.keep(ctx, &artifact{name: name, sum: sum, file: file, kind: moduleTypes[0], platform: modulePlatform, limit: MaxModule})
}

// An artifact is a file that is kept as one layer, of which nothing more is
// known than its kind.
type artifact struct {
	name     string // that it is recorded under
	sum      string // its sha256 in hex
	file     string
	kind     types.MediaType
	platform string
	limit    int64 // bytes
}

// keep keeps an artifact, until it is collected as images are.
func (s *Store) keep(ctx context.Context, a *artifact) error {
	info, err := os.Stat(a.file)
	if err != nil {
		return sorted(a.file, err)
	}
	claim, err := s.newClaim(ctx)
	if err != nil {
		return err
	}
	defer claim.release()
	layer := v1.Hash{Algorithm: "sha256", Hex: a.sum}
	config := []byte("{}")
	manifest, err := json.Marshal(&v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Size: int64(len(config)), Digest: digestOf(config)},
		Layers: []v1.Descriptor{{MediaType: a.kind, Size: info.Size(), Digest: layer}},
	})
	if err != nil {
		return err
	}
	if err := claim.add(layer, digestOf(config), digestOf(manifest)); err != nil {
		return err
	}
	get := &fetch{digest: layer, size: info.Size(), limit: a.limit, open: func(context.Context, int64) (io.ReadCloser, int64, error) {
		f, err := os.Open(a.file)
		return f, 0, err
	}}
	if err := s.blobs.fetch(ctx, get); err != nil {
		return err
	}
	if err := errors.Join(s.blobs.write(digestOf(config), config, ""), s.blobs.write(digestOf(manifest), manifest, "")); err != nil {
		return err
	}
	return s.remember(ctx, a.name, &pulled{name: a.name, digest: digestOf(manifest), platform: a.platform})
}
