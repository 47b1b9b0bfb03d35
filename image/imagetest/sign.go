package imagetest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
)

// Sign puts a signature of a manifest of a repository into the registry, as
// cosign does it with a key pair.
func Sign(t testing.TB, r *Registry, repo, digest string, key crypto.Signer) {
	t.Helper()
	SignAs(t, r, repo, digest, key, Payload(r.Host+"/"+repo, digest))
}

// Payload is what is signed for a manifest.
func Payload(name, digest string) string {
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		name, digest)
}

// SignAs is Sign of any contents.
func SignAs(t testing.TB, r *Registry, repo, digest string, key crypto.Signer, payload string) {
	t.Helper()
	data, opts := []byte(payload), crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.(ed25519.PrivateKey); !ok {
		sum := sha256.Sum256(data)
		data, opts = sum[:], crypto.SHA256
	}
	signature, err := key.Sign(rand.Reader, data, opts)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer([]byte(payload), "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Push(t, repo+":"+strings.Replace(digest, ":", "-", 1)+".sig", v1.Image(img))
}
