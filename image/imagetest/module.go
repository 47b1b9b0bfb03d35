package imagetest

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Module makes an artifact whose one layer is a WebAssembly module, as it is
// pushed by programs that know such layers by kind. Config is the kind of its
// configuration, which has nothing in it; empty: that of an image.
func Module(t testing.TB, data string, kind, config types.MediaType) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer([]byte(data), kind))
	if err != nil {
		t.Fatal(err)
	}
	if config == "" {
		config = types.OCIConfigJSON
	}
	return mutate.ConfigMediaType(img, config)
}
