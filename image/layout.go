//go:build unix

package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
)

// The annotations by which entries of a layout's index are named.
const (
	refName  = "org.opencontainers.image.ref.name"
	fullRef  = "io.containerd.image.name"
	indexDoc = "index.json"
)

// A layout is the source of an image in an OCI layout: a folder or an archive.
type layout struct {
	unsigned
	files files
	ref   *Reference
	data  []byte // of its index
	index *v1.IndexManifest
}

var _ source = (*layout)(nil)

func (l *layout) close() { l.files.close() }

// read reads the index. For p the layout is who owns its index.
func (l *layout) read(p *pulling) error {
	file, err := l.files.open(indexDoc)
	if errors.Is(err, caisson.ErrNotFound) {
		return invalid("not an OCI layout: %w", err)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if file.info != nil {
		p.access = p.fileAccess(file.info)
	}
	l.data, err = file.all(indexDoc, maxDocument)
	return err
}

// resolve implements source.
func (l *layout) resolve(context.Context) (*document, error) {
	doc, err := newDocument(l.data, string(types.OCIImageIndex))
	if err != nil {
		return nil, err
	}
	if doc.index == nil {
		return nil, invalid("%s is not an index", indexDoc)
	}
	l.index = doc.index
	return l.tagged()
}

// tagged returns an index of the entries that have the wanted tag.
func (l *layout) tagged() (*document, error) {
	index := *l.index
	index.Manifests = nil
	var all []string
	for i := range l.index.Manifests {
		desc := &l.index.Manifests[i]
		names := namesOf(desc)
		all = append(all, names...)
		if l.ref.Tag == "" || slices.ContainsFunc(names, func(name string) bool { return tagIs(name, l.ref.Tag) }) {
			index.Manifests = append(index.Manifests, *desc)
		}
	}
	if len(index.Manifests) == 0 {
		return nil, noTag(l.ref.Tag, all)
	}
	data, err := json.Marshal(&index)
	if err != nil {
		return nil, invalid("%s: %v", indexDoc, err)
	}
	return &document{data: data, index: &index}, nil
}

// namesOf returns the names that an entry of a layout's index has.
func namesOf(desc *v1.Descriptor) []string {
	var names []string
	for _, key := range []string{refName, fullRef} {
		if name := desc.Annotations[key]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// tagIs reports whether a name of an image in a folder or archive is what a
// reference asks for: the same, the same in full, or one with that tag.
func tagIs(name, want string) bool {
	if name == want {
		return true
	}
	have, err := parseName(name)
	if err != nil {
		return false
	}
	if strings.ContainsAny(want, "/:@") {
		asked, err := parseName(want)
		return err == nil && asked.String() == have.String()
	}
	return strings.ContainsAny(name, "/:") && have.Tag == want
}

func noTag(want string, all []string) error {
	if len(all) > 30 {
		all = all[:30]
	}
	for i := range all {
		all[i] = shorten(all[i])
	}
	switch {
	case want == "":
		return notFound("there is no image in it")
	case len(all) == 0:
		return notFound("there is no image %q in it, and none has a tag", shorten(want))
	}
	return notFound("there is no image %q in it: there is %q", shorten(want), all)
}

// manifest implements source.
func (l *layout) manifest(_ context.Context, digest v1.Hash) (*document, error) {
	data, err := readPart(l.files, blobName(digest), maxDocument)
	if err != nil {
		return nil, err
	}
	if got := digestOf(data); got != digest {
		return nil, invalid("wrong digest: what is there has %s, expected %s", got, digest)
	}
	return newDocument(data, "")
}

func blobName(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// blob implements source.
func (l *layout) blob(_ context.Context, desc *v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if _, err := parseDigest(desc.Digest.String()); err != nil {
		return nil, 0, invalid("%w", err)
	}
	p, err := l.files.open(blobName(desc.Digest))
	if err != nil {
		return nil, 0, err
	}
	return p.seek(offset, desc.Size)
}

// tags implements source. A tag alone names no image.
func (l *layout) tags(digest v1.Hash) []string {
	var names []string
	for i := range l.index.Manifests {
		desc := &l.index.Manifests[i]
		if desc.Digest != digest && len(l.index.Manifests) > 1 {
			continue
		}
		for _, name := range namesOf(desc) {
			if strings.ContainsAny(name, "/:") {
				names = append(names, name)
			}
		}
	}
	return names
}
