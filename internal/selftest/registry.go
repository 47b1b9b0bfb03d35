//go:build unix

package selftest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/image"
)

// The media types of what a registry serves.
const (
	typeManifest  = "application/vnd.oci.image.manifest.v1+json"
	typeIndex     = "application/vnd.oci.image.index.v1+json"
	typeConfig    = "application/vnd.oci.image.config.v1+json"
	typeLayer     = "application/vnd.oci.image.layer.v1.tar"
	typeSignature = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// A registry serves what attacks put into it, whether it is true or not.
type registry struct {
	host string

	mu        sync.Mutex
	blobs     map[string][]byte // by digest
	manifests map[string]content
	asked     map[string]int // how often a manifest was asked for
	// moved is what a tag is from the second look at it on.
	moved map[string]string
	away  string // where every request for a blob is sent; empty: nowhere
}

type content struct {
	kind string
	data []byte
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// newRegistry starts a registry that ends with the trial.
func newRegistry(t *attack.Trial) *registry {
	r := &registry{blobs: map[string][]byte{}, manifests: map[string]content{}, asked: map[string]int{}, moved: map[string]string{}}
	r.host = fmt.Sprintf("127.0.0.1:%d", serve(t, r.answer))
	return r
}

// answer serves the part of the registry's protocol that a pull needs.
func (r *registry) answer(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")
	if req.URL.Path == "/v2/" || len(parts) < 3 {
		return
	}
	what, name := parts[len(parts)-2], parts[len(parts)-1]
	if what == "blobs" && r.away != "" {
		http.Redirect(w, req, r.away, http.StatusTemporaryRedirect)
		return
	}
	if what == "blobs" {
		if data, ok := r.blobs[name]; ok {
			send(w, req, "application/octet-stream", data)
			return
		}
	}
	if what == "manifests" {
		r.asked[name]++
		if other, ok := r.moved[name]; ok && r.asked[name] > 1 {
			name = other
		}
		if m, ok := r.manifests[name]; ok {
			send(w, req, m.kind, m.data)
			return
		}
	}
	http.NotFound(w, req)
}

func send(w http.ResponseWriter, req *http.Request, kind string, data []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	if req.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

// descriptor says what a part of an image is.
func descriptor(kind string, data []byte) map[string]any {
	return map[string]any{"mediaType": kind, "digest": digestOf(data), "size": len(data)}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// put puts an image with one file into the registry, under a tag and its
// digest, and returns its manifest.
func (r *registry) put(tag, text string) []byte {
	layer := attack.Pack(attack.Entry{Name: "file", Text: text}).Bytes()
	config := encode(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"/" + text}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	manifest := encode(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": descriptor(typeConfig, config), "layers": []any{descriptor(typeLayer, layer)},
	})
	r.mu.Lock()
	r.blobs[digestOf(layer)], r.blobs[digestOf(config)] = layer, config
	r.mu.Unlock()
	r.manifest(tag, typeManifest, manifest)
	return manifest
}

// manifest puts a document under a tag and its digest.
func (r *registry) manifest(tag, kind string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[tag] = content{kind, data}
	r.manifests[digestOf(data)] = content{kind, data}
}

// sign puts a signature of an image, by a key, for a repository.
func (r *registry) sign(t *attack.Trial, key *ecdsa.PrivateKey, signed, tagged []byte, repository string) {
	payload := encode(map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": repository},
			"image":    map[string]any{"docker-manifest-digest": digestOf(signed)},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	t.OK(err, "signing")
	layer := descriptor(typeSignature, payload)
	layer["annotations"] = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)}
	config := []byte("{}")
	r.mu.Lock()
	r.blobs[digestOf(payload)], r.blobs[digestOf(config)] = payload, config
	r.mu.Unlock()
	r.manifest(strings.Replace(digestOf(tagged), ":", "-", 1)+".sig", typeManifest, encode(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": descriptor(typeConfig, config), "layers": []any{layer},
	}))
}

// pull opens a store in a folder of its own and pulls from the registry. keys
// are those of a policy for all of it; nil: there is no policy.
func (r *registry) pull(t *attack.Trial, name string, keys *ecdsa.PublicKey, ref string) (*image.Image, error) {
	opts := &image.Options{Dir: filepath.Join(t.Dir, "store-"+name), Sources: image.Sources{HTTP: []string{r.host}, Tries: 1}}
	if keys != nil {
		dir := t.Folder("keys")
		der, err := x509.MarshalPKIXPublicKey(keys)
		t.OK(err, "encoding a key")
		t.OK(os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644), "WriteFile")
		opts.Sources.KeyDir = dir
		opts.Sources.Policies = []image.Policy{{Prefix: r.host, Action: image.ActionSigned, Keys: []string{"key.pem"}}}
	}
	s, err := image.Open(opts)
	t.OK(err, "image.Open")
	return s.Get(t.Context(), &image.Request{Ref: r.host + "/" + ref, Trusted: true, Pull: image.PullAlways})
}

// newKey makes a key pair.
func newKey(t *attack.Trial) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	t.OK(err, "GenerateKey")
	return key
}

func wrongDigest(t *attack.Trial) {
	r := newRegistry(t)
	manifest := r.put("good", "good")
	if _, err := r.pull(t, "good", nil, "app:good"); err != nil {
		t.OK(err, "pulling an image that is as it says")
	}
	other := r.put("other", "other")
	for digest := range r.blobs {
		was := r.blobs[digest]
		r.mu.Lock()
		r.blobs[digest] = append([]byte("x"), was[1:]...)
		r.mu.Unlock()
		_, first := r.pull(t, "blob-"+digest[7:20], nil, "app:good")
		_, second := r.pull(t, "blob2-"+digest[7:20], nil, "app:other")
		if first == nil && second == nil {
			t.Errorf("%s with other bytes was accepted", digest)
		}
		r.mu.Lock()
		r.blobs[digest] = was
		r.mu.Unlock()
	}
	r.mu.Lock()
	r.manifests[digestOf(manifest)] = content{typeManifest, other}
	r.mu.Unlock()
	if _, err := r.pull(t, "manifest", nil, "app@"+digestOf(manifest)); err == nil {
		t.Errorf("another manifest than the digest says was accepted")
	}
}

func unsigned(t *attack.Trial) {
	r := newRegistry(t)
	repository := r.host + "/app"
	ours, theirs := newKey(t), newKey(t)
	good := r.put("good", "good")
	r.sign(t, ours, good, good, repository)
	if _, err := r.pull(t, "good", &ours.PublicKey, "app:good"); err != nil {
		t.OK(err, "pulling an image that is signed")
	}
	r.put("bare", "bare")
	stolen, elsewhere, forged := r.put("stolen", "stolen"), r.put("elsewhere", "elsewhere"), r.put("forged", "forged")
	r.sign(t, ours, good, stolen, repository)                       // of another image
	r.sign(t, ours, elsewhere, elsewhere, "registry.example/other") // of another repository
	r.sign(t, theirs, forged, forged, repository)                   // by another key
	for _, tag := range []string{"bare", "stolen", "elsewhere", "forged"} {
		if _, err := r.pull(t, tag, &ours.PublicKey, "app:"+tag); err == nil {
			t.Errorf("the image %q was accepted", tag)
		}
	}
}

func redirected(t *attack.Trial) {
	r := newRegistry(t)
	r.put("good", "good")
	var hits atomic.Int64
	secret := serve(t, func(w http.ResponseWriter, _ *http.Request) { hits.Add(1) })
	for i, away := range []string{
		fmt.Sprintf("http://127.0.0.1:%d/", secret), fmt.Sprintf("http://localhost:%d/", secret), fmt.Sprintf("http://[::ffff:127.0.0.1]:%d/", secret),
		"file:///etc/passwd",
	} {
		r.mu.Lock()
		r.away = away
		r.mu.Unlock()
		if _, err := r.pull(t, fmt.Sprint("away", i), nil, "app:good"); err == nil {
			t.Errorf("a layer was taken from %s", away)
		}
	}
	if n := hits.Load(); n > 0 {
		t.Errorf("a private server was asked %d times because a registry said so", n)
	}
}

func tagMoved(t *attack.Trial) {
	r := newRegistry(t)
	key := newKey(t)
	good := r.put("good", "good")
	r.sign(t, key, good, good, r.host+"/app")
	r.put("evil", "evil")
	r.mu.Lock()
	r.moved["good"] = "evil"
	r.mu.Unlock()
	img, err := r.pull(t, "moved", &key.PublicKey, "app:good")
	if err == nil && (img.Digest != digestOf(good) || len(img.Config.Cmd) != 1 || img.Config.Cmd[0] != "/good") {
		t.Errorf("what was checked is %s, what was pulled %s with %v", digestOf(good), img.Digest, img.Config.Cmd)
	}
}

func confusion(t *attack.Trial) {
	r := newRegistry(t)
	good, evil := r.put("good", "good"), r.put("evil", "evil")
	var manifest map[string]any
	t.OK(json.Unmarshal(good, &manifest), "Unmarshal")
	for _, kind := range []string{typeManifest, typeIndex} {
		for _, inside := range []string{typeManifest, typeIndex, ""} {
			manifest["manifests"] = []any{map[string]any{
				"mediaType": typeManifest, "digest": digestOf(evil), "size": len(evil),
				"platform": map[string]string{"architecture": runtime.GOARCH, "os": "linux"},
			}}
			if manifest["mediaType"] = inside; inside == "" {
				delete(manifest, "mediaType")
			}
			r.manifest("both", kind, encode(manifest))
			if img, err := r.pull(t, "both", nil, "app:both"); err == nil {
				t.Errorf("a document that is both, sent as %s and called %q in itself, was taken as %v", kind, inside, img.Config.Cmd)
			}
		}
	}
}
