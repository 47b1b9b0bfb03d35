//go:build unix

package image

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

// Signatures are those of key pairs as cosign makes them: bundles, see bundle.go,
// and before its version 3, and still if asked to, in a form of its own. The
// manifest with tag
// sha256-HEX.sig has a layer for each signature. Its contents say which
// manifest of which repository is signed, and an annotation has the signature
// of these contents.
const (
	signatureType       = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	// maxSignatures is how many signatures of an image are looked at.
	maxSignatures = 64
	// maxPayload is the most bytes of what is signed.
	maxPayload = 64 << 10
	// maxKey is the most bytes of a file with a key.
	maxKey = 64 << 10
)

// A publicKey is one of the operator's.
type publicKey struct {
	key   crypto.PublicKey
	print string // identifies it
}

// verify refuses an image that has no signature by one of the keys: of what the
// reference names, or of the manifest for this platform.
func (t *trust) verify(ctx context.Context, p *pulling, top *document, found *candidate) error {
	if t.policy == nil {
		return nil
	}
	if ok, err := t.knows(p.remote.dir, p.ref, found.doc.digest); ok || err != nil {
		return err
	}
	digests := []v1.Hash{found.doc.digest}
	if top.digest != found.doc.digest {
		digests = []v1.Hash{top.digest, found.doc.digest}
	}
	seen := 0
	for _, digest := range digests {
		for _, verify := range []func(context.Context, *pulling, v1.Hash) (*publicKey, int, error){t.verifyDigest, t.verifyBundles} {
			key, n, err := verify(ctx, p, digest)
			if err != nil {
				return err
			}
			if key != nil {
				return t.note(p.remote.dir, p.ref, found.doc.digest, key)
			}
			seen += n
		}
	}
	if seen == 0 {
		return denied("it is not signed, and the operator's policy for %q asks for that", t.policy.Prefix)
	}
	return denied("none of its %d signatures is good and by a key of the operator's policy for %q", seen, t.policy.Prefix)
}

// verifyDigest returns the key by which a digest is signed, or nil, and how many
// signatures were looked at.
func (t *trust) verifyDigest(ctx context.Context, p *pulling, digest v1.Hash) (*publicKey, int, error) {
	doc, err := p.src.signatures(ctx, digest)
	if errors.Is(err, caisson.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("its signatures: %w", err)
	}
	if doc.image == nil {
		return nil, 0, nil
	}
	seen := 0
	for i := range doc.image.Layers {
		desc := &doc.image.Layers[i]
		signature, err := base64.StdEncoding.DecodeString(desc.Annotations[signatureAnnotation])
		if desc.MediaType != signatureType || err != nil || len(signature) == 0 {
			continue
		}
		if seen++; seen > maxSignatures {
			break
		}
		payload, err := p.small(ctx, desc, maxPayload)
		if errors.Is(err, caisson.ErrInvalid) || errors.Is(err, caisson.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, seen, fmt.Errorf("its signatures: %w", err)
		}
		if key := t.signer(payload, signature); key != nil && signs(payload, p.ref.Name(), digest) {
			return key, seen, nil
		}
	}
	return nil, seen, nil
}

// signer returns the key that a signature is by; nil: none of them.
func (t *trust) signer(payload, signature []byte) *publicKey {
	sum := sha256.Sum256(payload)
	for i := range t.keys {
		good := false
		switch key := t.keys[i].key.(type) {
		case *ecdsa.PublicKey:
			good = ecdsa.VerifyASN1(key, sum[:], signature)
		case ed25519.PublicKey:
			good = ed25519.Verify(key, payload, signature)
		case *rsa.PublicKey:
			good = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
		}
		if good {
			return &t.keys[i]
		}
	}
	return nil
}

// signs reports whether what was signed says that it is this manifest, of this
// repository.
func signs(payload []byte, name string, digest v1.Hash) bool {
	var p struct {
		Critical struct {
			Type     string `json:"type"`
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if json.Unmarshal(payload, &p) != nil || p.Critical.Image.Digest != digest.String() {
		return false
	}
	if p.Critical.Type != "cosign container image signature" && p.Critical.Type != "atomic container signature" {
		return false
	}
	ref, err := parseName(p.Critical.Identity.Reference)
	return err == nil && ref.Name() == name
}

// knows reports whether a manifest was verified before as it is now asked for.
func (t *trust) knows(dir string, ref *Reference, digest v1.Hash) (bool, error) {
	if t.policy == nil {
		return true, nil
	}
	for i := range t.keys {
		_, err := os.Lstat(signedPath(dir, ref, digest, &t.keys[i]))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}

// note writes down that a manifest was verified.
func (t *trust) note(dir string, ref *Reference, digest v1.Hash, key *publicKey) error {
	path := signedPath(dir, ref, digest, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return sorted("the store", err)
	}
	return sorted("the store", atomicfile.Write(path, nil, 0o600))
}

func signedPath(dir string, ref *Reference, digest v1.Hash, key *publicKey) string {
	sum := sha256.Sum256([]byte(key.print + " " + ref.Name()))
	return filepath.Join(dir, signedDir, digest.Hex, hex.EncodeToString(sum[:]))
}

// loadKeys reads public keys from the operator's folder. Nobody else may be
// able to put one there.
func loadKeys(dir string, names []string) ([]publicKey, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, keyProblem(dir, caisson.ErrInvalid, err)
	}
	for at := real; ; at = filepath.Dir(at) {
		if err := ownersOnly(at); err != nil {
			return nil, keyProblem(at, caisson.ErrDenied, err)
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	var keys []publicKey
	for _, name := range names {
		path := filepath.Join(real, name)
		if err := ownersOnly(path); err != nil {
			kind := caisson.ErrDenied
			if errors.Is(err, fs.ErrNotExist) {
				kind = caisson.ErrInvalid
			}
			return nil, keyProblem(path, kind, err)
		}
		key, err := loadKey(path)
		if err != nil {
			return nil, keyProblem(path, caisson.ErrInvalid, err)
		}
		keys = append(keys, *key)
	}
	return keys, nil
}

func keyProblem(path string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpConfig, Item: "signature key " + path, Kind: kind, Err: err}
}

// ownersOnly refuses what somebody else than root and this process's user could
// change. In a sticky folder others can add, but not exchange.
func ownersOnly(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.IsDir() && !info.Mode().IsRegular():
		return errors.New("it is neither a folder nor a regular file")
	case stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d, who could change it: it must be root's or your own", stat.Uid)
	case info.Mode().Perm()&0o022 != 0 && (!info.IsDir() || info.Mode()&fs.ModeSticky == 0):
		return fmt.Errorf("others may write to it (mode %#o): take that away with chmod go-w", info.Mode().Perm())
	}
	return nil
}

// loadKey reads a file with one public key.
func loadKey(path string) (*publicKey, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("not a public key in PEM")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("more than one key: use a file for each")
	}
	var key crypto.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q instead of PUBLIC KEY", shorten(block.Type))
	}
	if err != nil {
		return nil, err
	}
	if rsaKey, ok := key.(*rsa.PublicKey); ok && rsaKey.N.BitLen() < 2048 {
		return nil, fmt.Errorf("an RSA key of %d bits is too short: use 2048 or more", rsaKey.N.BitLen())
	}
	switch key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
	default:
		return nil, fmt.Errorf("a key of type %T: use ECDSA, Ed25519 or RSA", key)
	}
	sum := sha256.Sum256(block.Bytes)
	return &publicKey{key: key, print: hex.EncodeToString(sum[:])}, nil
}
