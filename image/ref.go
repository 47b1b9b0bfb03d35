//go:build unix

package image

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
)

// A Scheme is the kind of place that a reference names.
type Scheme string

// The schemes. Without one, a reference is of a registry.
const (
	SchemeRegistry      Scheme = "docker"         // docker://NAME, or NAME alone
	SchemeLayout        Scheme = "oci"            // oci:DIR[:TAG]
	SchemeOCIArchive    Scheme = "oci-archive"    // oci-archive:FILE[:TAG]
	SchemeDockerArchive Scheme = "docker-archive" // docker-archive:FILE[:NAME:TAG]
	SchemeWeb           Scheme = "https"          // https://HOST/FILE#sha256=HEX[&tag=TAG]
)

// A Reference is a parsed name of an image.
type Reference struct {
	Scheme Scheme
	// Of a registry:
	Host   string // with its port; docker's own is docker.io
	Repo   string // below Host, such as library/busybox
	Tag    string // also within a folder or archive; empty with Digest, or if none was given
	Digest string // sha256:HEX; of a web archive's file, or of the manifest
	// Path is that of a folder or archive.
	Path string
	// URL is that of a web archive, without its fragment.
	URL string
}

// maxRef is the most bytes that a reference may have.
const maxRef = 4096

// ParseReference reads a reference. Names of registries are completed as docker
// does it: busybox is docker.io/library/busybox:latest. Of a tag and a digest
// the digest counts. Relative paths stay as they are.
//
// Errors: ErrInvalid; ErrUnsupported for forms of other programs.
func ParseReference(text string) (*Reference, error) {
	ref, err := parseReference(text)
	if err != nil {
		kind := caisson.KindOf(err)
		if kind == caisson.ErrUnknown {
			kind = caisson.ErrInvalid
		}
		return nil, &caisson.Error{Op: OpImage, Item: fmt.Sprintf("%q", shorten(text)), Kind: kind, Err: err}
	}
	return ref, nil
}

func parseReference(text string) (*Reference, error) {
	switch {
	case text == "":
		return nil, errors.New("no image is named")
	case len(text) > maxRef || strings.ContainsAny(text, "\x00\n\r\t "):
		return nil, errors.New("not a name of an image")
	}
	scheme, rest, _ := strings.Cut(text, ":")
	switch Scheme(scheme) {
	case SchemeRegistry:
		if name, ok := strings.CutPrefix(rest, "//"); ok {
			return parseName(name)
		}
	case SchemeLayout, SchemeOCIArchive, SchemeDockerArchive:
		return parsePath(Scheme(scheme), rest)
	case SchemeWeb:
		if strings.HasPrefix(rest, "//") {
			return parseWeb(text)
		}
	}
	if err := foreign(text); err != nil {
		return nil, err
	}
	return parseName(text)
}

// aciID is how an ACI image is named by its hash.
var aciID = regexp.MustCompile(`^sha512-[0-9a-f]{6,128}$`)

// foreign refuses by name what other programs take for a reference.
func foreign(text string) error {
	lower := strings.ToLower(text)
	switch {
	case strings.HasSuffix(lower, ".aci"), strings.Contains(lower, ",version="), strings.HasPrefix(lower, "aci:"), aciID.MatchString(lower):
		return unsupported("ACI images are not supported: use an OCI or docker image")
	case strings.HasPrefix(lower, "http://"):
		return errors.New("archives come by https only: use https://HOST/FILE#sha256=HEX")
	case strings.HasPrefix(lower, "docker-daemon:"), strings.HasPrefix(lower, "containers-storage:"),
		strings.HasPrefix(lower, "dir:"), strings.Contains(text, "://"):
		return unsupported("such references are not supported: use NAME[:TAG], oci:DIR, oci-archive:FILE, docker-archive:FILE or https://HOST/FILE#sha256=HEX")
	}
	return nil
}

func unsupported(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

func denied(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrDenied, Err: fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf(format, args...)}
}

// parseName reads a name of a registry's image.
func parseName(text string) (*Reference, error) {
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return nil, fmt.Errorf("not a name of an image (NAME[:TAG][@sha256:HEX], in lower case): %w", err)
	}
	ref := &Reference{Scheme: SchemeRegistry, Host: reference.Domain(named), Repo: reference.Path(named)}
	switch n := named.(type) {
	case reference.Digested:
		ref.Digest = n.Digest().String()
		if _, err := parseDigest(ref.Digest); err != nil {
			return nil, err
		}
	case reference.Tagged:
		ref.Tag = n.Tag()
	}
	return ref, nil
}

// parseDigest reads sha256:HEX. Other algorithms are not used by anybody.
func parseDigest(text string) (v1.Hash, error) {
	hash, err := v1.NewHash(text)
	if err != nil || hash.Algorithm != "sha256" {
		return v1.Hash{}, fmt.Errorf("digest %q: not sha256: and 64 hexadecimal digits in lower case", shorten(text))
	}
	return hash, nil
}

// parsePath reads PATH[:TAG]. As in other programs, a path has no colon.
func parsePath(scheme Scheme, rest string) (*Reference, error) {
	path, tag, hasTag := strings.Cut(rest, ":")
	if path == "" {
		return nil, fmt.Errorf("the path is missing: use %s:PATH[:TAG]", scheme)
	}
	if hasTag && tag == "" {
		return nil, fmt.Errorf("the tag is missing after the colon: use %s:PATH[:TAG]", scheme)
	}
	return &Reference{Scheme: scheme, Path: filepath.Clean(path), Tag: tag}, nil
}

// parseWeb reads the URL of an archive, whose digest is in the fragment.
func parseWeb(text string) (*Reference, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, errors.New("not a URL: use https://HOST/FILE#sha256=HEX")
	}
	if u.User != nil {
		return nil, errors.New("the URL of an archive has no user or password")
	}
	if strings.HasSuffix(strings.ToLower(u.Path), ".aci") {
		return nil, foreign(u.Path)
	}
	fields, err := url.ParseQuery(u.Fragment)
	if err != nil {
		return nil, errors.New("the part after # is not sha256=HEX")
	}
	ref := &Reference{Scheme: SchemeWeb}
	for key, values := range fields {
		switch {
		case key == "sha256" && len(values) == 1:
			ref.Digest = "sha256:" + values[0]
		case key == "tag" && len(values) == 1 && values[0] != "":
			ref.Tag = values[0]
		default:
			return nil, fmt.Errorf("%q after # is neither sha256=HEX nor tag=TAG", shorten(key))
		}
	}
	if ref.Digest == "" {
		return nil, errors.New("an archive from a web server needs its digest: add #sha256=HEX")
	}
	if _, err := parseDigest(ref.Digest); err != nil {
		return nil, err
	}
	u.Fragment, u.RawFragment = "", ""
	ref.URL = u.String()
	return ref, nil
}

// Name returns host and repository of a registry's image, without tag and
// digest. Of others it is empty.
func (r *Reference) Name() string {
	if r.Scheme != SchemeRegistry {
		return ""
	}
	return r.Host + "/" + r.Repo
}

// String returns the reference in full, in the one form that all its spellings
// have in common.
func (r *Reference) String() string {
	switch r.Scheme {
	case SchemeRegistry:
		if r.Digest != "" {
			return r.Name() + "@" + r.Digest
		}
		return r.Name() + ":" + r.Tag
	case SchemeWeb:
		text := r.URL + "#sha256=" + strings.TrimPrefix(r.Digest, "sha256:")
		if r.Tag != "" {
			text += "&tag=" + url.QueryEscape(r.Tag)
		}
		return text
	}
	if r.Tag != "" {
		return string(r.Scheme) + ":" + r.Path + ":" + r.Tag
	}
	return string(r.Scheme) + ":" + r.Path
}

// below returns the same reference with a relative path made to start in dir.
func (r *Reference) below(dir string) (*Reference, error) {
	if r.Path == "" || filepath.IsAbs(r.Path) {
		return r, nil
	}
	if dir == "" {
		return nil, invalid("the path of %s is relative, and there is no folder that it starts in: use an absolute one", r)
	}
	abs := *r
	abs.Path = filepath.Join(dir, r.Path)
	return &abs, nil
}

// file reports whether the image lies on this host.
func (r *Reference) file() bool { return r.Path != "" }

// fullName returns the name under which an image is recorded.
func fullName(text, dir string) (string, error) {
	ref, err := ParseReference(text)
	if err != nil {
		return "", err
	}
	if ref, err = ref.below(dir); err != nil {
		return "", err
	}
	return ref.String(), nil
}

// shorten bounds text from outside that appears in a message.
func shorten(text string) string {
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "?") + "..."
	}
	return text
}
