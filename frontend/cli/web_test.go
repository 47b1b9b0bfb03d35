package cli_test

import (
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdServed serves a folder until the script's end, and sets WEB to its URL.
func cmdServed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: served DIR")
	}
	server := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(server.Close)
	ts.Setenv("WEB", server.URL)
}

// cmdArtifact pushes a module to a registry, the one of the services of the tests
// where there is one, and sets REGISTRY to its host. Caisson speaks to it
// without TLS.
func cmdArtifact(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: artifact REPOSITORY:TAG FILE")
	}
	host := ts.Getenv("REGISTRY")
	if host == "" {
		host = os.Getenv("CAISSON_TEST_REGISTRY")
	}
	if host == "" {
		server := httptest.NewServer(registry.New())
		ts.Defer(server.Close)
		host = server.Listener.Addr().String()
	}
	ts.Setenv("REGISTRY", host)
	ts.Setenv("CAISSON_IMAGE_HTTP", host)
	tag, err := name.NewTag(host+"/"+args[0], name.Insecure)
	ts.Check(err)
	layer := static.NewLayer([]byte(ts.ReadFile(args[1])), "application/wasm")
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	ts.Check(err)
	ts.Check(remote.Write(tag, mutate.ConfigMediaType(img, "application/vnd.wasm.config.v0+json")))
}
