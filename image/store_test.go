//go:build unix

package image_test

import (
	"bytes"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson/image/imagetest"
)

// rawLayer is a layer of any bytes, of which its image says that they hold
// something else.
type rawLayer struct {
	v1.Layer
}

func (l rawLayer) DiffID() (v1.Hash, error) {
	hash, _, err := v1.SHA256(bytes.NewReader([]byte("else")))
	return hash, err
}

func (l rawLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }

func rawImage(t *testing.T, data []byte) v1.Image {
	t.Helper()
	return imagetest.Image(t, nil, rawLayer{static.NewLayer(data, types.OCILayer)})
}
