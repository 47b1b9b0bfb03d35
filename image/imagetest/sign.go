package imagetest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
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

// sign returns the signature of data.
func sign(t testing.TB, key crypto.Signer, data []byte) []byte {
	t.Helper()
	opts := crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.(ed25519.PrivateKey); !ok {
		sum := sha256.Sum256(data)
		data, opts = sum[:], crypto.SHA256
	}
	signature, err := key.Sign(rand.Reader, data, opts)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// Statement is what is signed for a manifest in a bundle.
func Statement(digest string) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"))
}

// SignBundle puts a bundle with a signed statement into the registry, as an
// artifact that refers to a manifest of the repository, as cosign 3 does it with
// a key pair.
func SignBundle(t testing.TB, r *Registry, repo string, img v1.Image, key crypto.Signer, statement string) {
	t.Helper()
	const kind, inToto = "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.in-toto+json"
	signature := sign(t, key, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(statement), statement))
	bundle := fmt.Sprintf(`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[]},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		kind, base64.StdEncoding.EncodeToString([]byte(statement)), inToto, base64.StdEncoding.EncodeToString(signature))
	subject, err := partial.Descriptor(img)
	if err != nil {
		t.Fatal(err)
	}
	artifact, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(bundle), kind))
	if err != nil {
		t.Fatal(err)
	}
	artifact = mutate.ConfigMediaType(mutate.MediaType(artifact, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	r.Push(t, repo+":bundle-"+hex.EncodeToString(signature[:8]), mutate.Subject(artifact, *subject).(v1.Image))
}

// SignAs is Sign of any contents.
func SignAs(t testing.TB, r *Registry, repo, digest string, key crypto.Signer, payload string) {
	t.Helper()
	signature := sign(t, key, []byte(payload))
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer([]byte(payload), "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Push(t, repo+":"+strings.Replace(digest, ":", "-", 1)+".sig", v1.Image(img))
}
