//go:build unix

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"mime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// maxDocument is the most bytes of a manifest or index. Registries take no
	// more than 4 MiB.
	maxDocument = 4 << 20
	// maxChildren is the most manifests of an index.
	maxChildren = 1000
	// maxIndexDepth is how many indexes may lead to each other.
	maxIndexDepth = 3
	// maxUnlabelled is how many manifests of an index are looked at to learn
	// what they are for, where the index does not say.
	maxUnlabelled = 32
)

// documentTypes are the kinds of manifests and indexes that are understood.
var documentTypes = []string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}

// A document is a manifest or an index, as it was sent.
type document struct {
	data   []byte
	digest v1.Hash // of data; zero for an index that nobody sent
	// Exactly one of these is set.
	index *v1.IndexManifest
	image *v1.Manifest
}

// newDocument reads a manifest or index. contentType is what it was said to be;
// empty: nothing was said. What a document is it must say by itself or be by
// its form: one that can be read as both is neither.
func newDocument(data []byte, contentType string) (*document, error) {
	if len(data) > maxDocument {
		return nil, invalid("the manifest is larger than %d bytes", maxDocument)
	}
	var form struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, invalid("what came is not a manifest")
	}
	if base, _, err := mime.ParseMediaType(contentType); err == nil {
		contentType = base
	}
	kind := form.MediaType
	if kind == "" && slices.Contains(documentTypes, contentType) {
		kind = contentType
	}
	isIndex := kind == string(types.OCIImageIndex) || kind == string(types.DockerManifestList) || kind == "" && form.Manifests != nil
	switch {
	case form.SchemaVersion == 1 || form.FSLayers != nil:
		return nil, unsupported("the image has a manifest of version 1, which nobody can check: have it pushed again by a newer program")
	case kind != "" && !slices.Contains(documentTypes, kind):
		return nil, unsupported("a manifest of type %q is not an image's", shorten(kind))
	case form.MediaType != "" && slices.Contains(documentTypes, contentType) && form.MediaType != contentType,
		isIndex && form.Layers != nil, !isIndex && form.Manifests != nil:
		return nil, invalid("what came is not clearly either a manifest or an index")
	}
	return decode(data, isIndex)
}

func decode(data []byte, isIndex bool) (*document, error) {
	doc := &document{data: data, digest: digestOf(data)}
	var err error
	if isIndex {
		doc.index = &v1.IndexManifest{}
		err = json.Unmarshal(data, doc.index)
	} else {
		doc.image = &v1.Manifest{}
		err = json.Unmarshal(data, doc.image)
	}
	if err != nil {
		return nil, invalid("what came is not a manifest: %v", err)
	}
	if isIndex && len(doc.index.Manifests) > maxChildren {
		return nil, invalid("the index has more than %d manifests", maxChildren)
	}
	return doc, nil
}

// digestOf returns the digest of data.
func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
