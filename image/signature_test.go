//go:build unix

package image_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// keys makes a folder of public keys and returns the private ones.
func keys(t *testing.T) (dir string, private map[string]crypto.Signer) {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private = map[string]crypto.Signer{"ecdsa.pub": p256, "ed25519.pub": edwards, "rsa.pub": long, "other.pub": other}
	// A folder of its own: those above it must belong to root or the user, too.
	dir = filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, key := range private {
		data, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: data}))
	}
	return dir, private
}

// signed are sources that want signatures by a key for the registry's team.
func signed(t *testing.T, reg *imagetest.Registry, dir string, names ...string) image.Sources {
	s := sources(t, reg)
	s.KeyDir = dir
	s.Policies = []image.Policy{{Prefix: reg.Host + "/team", Action: image.ActionSigned, Keys: names}}
	return s
}

func TestSignatures(t *testing.T) {
	dir, private := keys(t)
	for name, key := range private {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			img := small(t, "signed by "+name)
			ref := reg.Push(t, "team/app:1", img)
			s := pullStore(t, signed(t, reg, dir, name))
			_, err := get(t, s, ref)
			wantError(t, err, caisson.ErrDenied, "not signed", reg.Host+"/team")
			if n := reg.Count("GET blobs"); n != 1 {
				t.Errorf("%d blobs were fetched of an image without a signature, want its configuration alone", n)
			}
			imagetest.Sign(t, reg, "team/app", digestOf(t, img), key)
			mustGet(t, s, &image.Request{Ref: ref})
			// What was verified is not verified again, and needs nobody outside.
			reg.Close()
			mustGet(t, s, &image.Request{Ref: ref})
		})
	}
}

func TestBundles(t *testing.T) {
	dir, private := keys(t)
	for name, open := range map[string]func(testing.TB) *imagetest.Registry{
		"tag": imagetest.NewRegistry, "list": imagetest.NewListingRegistry,
	} {
		for file, key := range private {
			t.Run(name+"/"+file, func(t *testing.T) {
				reg := open(t)
				img := small(t, "signed by "+file)
				ref := reg.Push(t, "team/app:1", img)
				s := pullStore(t, signed(t, reg, dir, file))
				_, err := get(t, s, ref)
				wantError(t, err, caisson.ErrDenied, "not signed", reg.Host+"/team")
				imagetest.SignBundle(t, reg, "team/app", img, key, imagetest.Statement(digestOf(t, img)))
				mustGet(t, s, &image.Request{Ref: ref})
				reg.Close()
				mustGet(t, s, &image.Request{Ref: ref})
			})
		}
	}
}

func TestBundleErr(t *testing.T) {
	dir, private := keys(t)
	good := private["ecdsa.pub"]
	img, other := small(t, "an image"), small(t, "another image")
	statement := imagetest.Statement(digestOf(t, img))
	for name, test := range map[string]struct {
		key       crypto.Signer
		statement string
	}{
		"OtherKey":     {private["other.pub"], statement},
		"OtherImage":   {good, imagetest.Statement(digestOf(t, other))},
		"Attestation":  {good, strings.Replace(statement, "https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document", 1)},
		"OtherContent": {good, strings.Replace(statement, "in-toto.io/Statement", "example.org/Statement", 1)},
		"NoStatement":  {good, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			ref := reg.Push(t, "team/app:1", img)
			imagetest.SignBundle(t, reg, "team/app", img, test.key, test.statement)
			_, err := get(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), ref)
			wantError(t, err, caisson.ErrDenied, "none of its 1 signatures")
		})
	}
	t.Run("RegistryFails", func(t *testing.T) {
		reg := imagetest.NewRegistry(t)
		ref := reg.Push(t, "team/app:1", img)
		reg.Break(imagetest.Status("referrers", http.StatusBadGateway))
		_, err := get(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), ref)
		wantError(t, err, caisson.ErrUnavailable, "signatures", "502")
	})
}

func TestSignedIndex(t *testing.T) {
	dir, private := keys(t)
	reg := imagetest.NewRegistry(t)
	index := imagetest.Index(t, small(t, "amd64"), imagetest.ImageFor(t, "linux/arm64", nil))
	ref := reg.PushIndex(t, "team/multi:1", index)
	imagetest.Sign(t, reg, "team/multi", digestOf(t, index), private["ecdsa.pub"])
	s := pullStore(t, signed(t, reg, dir, "other.pub", "ecdsa.pub"))
	mustGet(t, s, &image.Request{Ref: ref, Platform: "linux/amd64"})
	mustGet(t, s, &image.Request{Ref: ref, Platform: "linux/arm64"})
}

func TestSignatureErr(t *testing.T) {
	dir, private := keys(t)
	good := private["ecdsa.pub"]
	img := small(t, "an image")
	other := small(t, "another image")
	for name, test := range map[string]struct {
		sign  func(t *testing.T, reg *imagetest.Registry)
		words string
	}{
		"OtherKey": {func(t *testing.T, reg *imagetest.Registry) {
			imagetest.Sign(t, reg, "team/app", digestOf(t, img), private["other.pub"])
		}, "none of its 1 signatures"},
		"OtherImage": {func(t *testing.T, reg *imagetest.Registry) {
			imagetest.SignAs(t, reg, "team/app", digestOf(t, img), good, imagetest.Payload(reg.Host+"/team/app", digestOf(t, other)))
		}, "none of its 1 signatures"},
		"OtherRepository": {func(t *testing.T, reg *imagetest.Registry) {
			imagetest.SignAs(t, reg, "team/app", digestOf(t, img), good, imagetest.Payload(reg.Host+"/team/other", digestOf(t, img)))
		}, "none of its 1 signatures"},
		"NoPayload": {func(t *testing.T, reg *imagetest.Registry) {
			imagetest.SignAs(t, reg, "team/app", digestOf(t, img), good, "{}")
		}, "none of its 1 signatures"},
		"Index": {func(t *testing.T, reg *imagetest.Registry) {
			reg.PushIndex(t, "team/app:"+strings.Replace(digestOf(t, img), ":", "-", 1)+".sig", imagetest.Index(t))
		}, "not signed"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			ref := reg.Push(t, "team/app:1", img)
			test.sign(t, reg)
			_, err := get(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), ref)
			wantError(t, err, caisson.ErrDenied, test.words)
		})
	}
	t.Run("RegistryFails", func(t *testing.T) {
		reg := imagetest.NewRegistry(t)
		ref := reg.Push(t, "team/app:1", img)
		reg.Break(imagetest.Status(".sig", http.StatusBadGateway))
		_, err := get(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), ref)
		wantError(t, err, caisson.ErrUnavailable, "signatures", "502")
	})
}

// A tag that is moved between the look at the signature and the fetch changes
// nothing: all of it goes by the digest that came first.
func TestTagMoves(t *testing.T) {
	dir, private := keys(t)
	reg := imagetest.NewRegistry(t)
	img, evil := small(t, "good"), small(t, "evil")
	ref := reg.Push(t, "team/app:1", img)
	imagetest.Sign(t, reg, "team/app", digestOf(t, img), private["ecdsa.pub"])
	reg.Break(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			reg.Push(t, "team/app:1", evil)
		}
		return false
	})
	if got := mustGet(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), &image.Request{Ref: ref}); got.Digest != digestOf(t, img) {
		t.Errorf("Get = %s, want the signed one, %s", got.Digest, digestOf(t, img))
	}
}

func TestPolicies(t *testing.T) {
	dir, private := keys(t)
	reg := imagetest.NewRegistry(t)
	img := small(t, "an image")
	for _, where := range []string{"team/app:1", "team/free/app:1", "teammate/app:1", "bad/app:1"} {
		reg.Push(t, where, img)
	}
	imagetest.Sign(t, reg, "team/app", digestOf(t, img), private["ecdsa.pub"])
	src := signed(t, reg, dir, "ecdsa.pub")
	src.Policies = append(src.Policies,
		image.Policy{Prefix: reg.Host + "/team/free", Action: image.ActionAccept},
		image.Policy{Prefix: reg.Host + "/bad/", Action: image.ActionReject},
		image.Policy{Prefix: "oci:", Action: image.ActionReject},
	)
	s := pullStore(t, src)
	mustGet(t, s, &image.Request{Ref: reg.Host + "/team/app:1"})
	mustGet(t, s, &image.Request{Ref: reg.Host + "/team/free/app:1"})
	mustGet(t, s, &image.Request{Ref: reg.Host + "/teammate/app:1"}) // only by its letters below team
	before := reg.Count("GET manifests")
	_, err := get(t, s, reg.Host+"/bad/app:1")
	wantError(t, err, caisson.ErrDenied, "rejects", "/bad")
	_, err = get(t, s, "oci:/srv/anything")
	wantError(t, err, caisson.ErrDenied, "rejects", "oci:")
	if reg.Count("GET manifests") != before {
		t.Error("a rejected image was asked for")
	}

	// What nobody named is refused where signatures are required.
	src.RequireSignatures = true
	_, err = get(t, pullStore(t, src), reg.Host+"/teammate/app:1")
	wantError(t, err, caisson.ErrDenied, "no keys")
	mustGet(t, pullStore(t, src), &image.Request{Ref: reg.Host + "/team/free/app:1"})
	imagetest.OCIArchive(t, filepath.Join(t.TempDir(), "a.tar"), map[string]v1.Image{"1": img})
	_, err = get(t, pullStore(t, src), "oci-archive:/srv/a.tar")
	wantError(t, err, caisson.ErrDenied, "no keys")

	// A policy that comes later holds for what is here already.
	dirOf := filepath.Join(t.TempDir(), "images")
	mustGet(t, pullStoreIn(t, dirOf, sources(t, reg)), &image.Request{Ref: reg.Host + "/teammate/app:1"})
	later := sources(t, reg)
	later.RequireSignatures = true
	_, err = get(t, pullStoreIn(t, dirOf, later), reg.Host+"/teammate/app:1")
	wantError(t, err, caisson.ErrDenied, "no keys")
}

func TestTrustPrefix(t *testing.T) {
	dir, private := keys(t)
	reg := imagetest.NewRegistry(t)
	img := small(t, "an image")
	ref := reg.Push(t, "team/app:1", img)
	free := reg.Push(t, "free/app:1", img)
	src := signed(t, reg, dir, "ecdsa.pub")
	src.Policies = append(src.Policies, image.Policy{Prefix: reg.Host, Action: image.ActionAccept})
	s := pullStore(t, src)
	with := func(ref, prefix string, insecure ...string) error {
		_, err := s.Get(t.Context(), &image.Request{Ref: ref, TrustPrefix: prefix, InsecureOptions: insecure, Trusted: true})
		return err
	}
	wantError(t, with(ref, reg.Host+"/team"), caisson.ErrDenied, "not signed")
	wantError(t, with(free, reg.Host+"/team"), caisson.ErrDenied, "trust_prefix")
	wantError(t, with(free, reg.Host+"/free"), caisson.ErrInvalid, "no keys")
	wantError(t, with(free, "", "none"), caisson.ErrDenied, "no keys")
	wantError(t, with(ref, "", "image"), caisson.ErrDenied, "allow_insecure")
	wantError(t, with(ref, "", "everything"), caisson.ErrInvalid, "everything")
	wantError(t, with(ref, "", "none", "image"), caisson.ErrDenied)
	if err := with(free, ""); err != nil {
		t.Errorf("what the policy accepts: %v", err)
	}
	if err := with(free, "", "seccomp"); err != nil {
		t.Errorf("an option that is for engines: %v", err)
	}
	imagetest.Sign(t, reg, "team/app", digestOf(t, img), private["ecdsa.pub"])
	if err := with(ref, "docker://"+reg.Host+"/team/", "none"); err != nil {
		t.Errorf("signed: %v", err)
	}
	// The operator lets tasks do without.
	src.AllowInsecure = []string{"image"}
	ref = reg.Push(t, "team/app:2", small(t, "another"))
	if _, err := pullStore(t, src).Get(t.Context(), &image.Request{Ref: ref, InsecureOptions: []string{"image"}, Trusted: true}); err != nil {
		t.Errorf("with image permitted: %v", err)
	}
}

func TestKeyErr(t *testing.T) {
	dir, _ := keys(t)
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "team/app:1", small(t, "x"))
	key := filepath.Join(dir, "ecdsa.pub")
	good := readFile(t, key)
	try := func(want caisson.Kind, words string) {
		t.Helper()
		_, err := get(t, pullStore(t, signed(t, reg, dir, "ecdsa.pub")), ref)
		wantError(t, err, want, words)
	}
	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(key, 0o666)
	try(caisson.ErrDenied, "others may write")
	chmod(key, 0o644)
	chmod(dir, 0o777)
	try(caisson.ErrDenied, "others may write")
	chmod(dir, 0o755)
	writeFile(t, key, []byte("hello"))
	try(caisson.ErrInvalid, "PEM")
	writeFile(t, key, append(good, good...))
	try(caisson.ErrInvalid, "more than one")
	writeFile(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	try(caisson.ErrInvalid, "PRIVATE KEY")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	try(caisson.ErrInvalid, "ecdsa.pub")
	if err := os.Symlink(filepath.Join(dir, "rsa.pub"), key); err != nil {
		t.Fatal(err)
	}
	try(caisson.ErrDenied, "regular file")
	if os.Geteuid() == 0 {
		os.Remove(key)
		writeFile(t, key, good)
		if err := os.Chown(key, 4321, -1); err != nil {
			t.Fatal(err)
		}
		try(caisson.ErrDenied, "4321")
	}
	if n := reg.Count("GET manifests"); n != 0 {
		t.Errorf("the registry was asked %d times with no key to check by", n)
	}
}

func TestSourcesErr(t *testing.T) {
	for name, s := range map[string]image.Sources{
		"Action":     {Policies: []image.Policy{{Prefix: "example.com", Action: "perhaps"}}},
		"NoKeys":     {Policies: []image.Policy{{Prefix: "example.com", Action: image.ActionSigned}}},
		"NoKeyDir":   {Policies: []image.Policy{{Prefix: "example.com", Action: image.ActionSigned, Keys: []string{"a"}}}},
		"KeyPath":    {KeyDir: "/k", Policies: []image.Policy{{Prefix: "example.com", Action: image.ActionSigned, Keys: []string{"../a"}}}},
		"OtherKeys":  {KeyDir: "/k", Policies: []image.Policy{{Prefix: "example.com", Action: image.ActionAccept, Keys: []string{"a"}}}},
		"NoRegistry": {Policies: []image.Policy{{Prefix: "busybox", Action: image.ActionAccept}}},
		"Twice":      {Policies: []image.Policy{{Prefix: "example.com", Action: image.ActionAccept}, {Prefix: "example.com/", Action: image.ActionReject}}},
		"Insecure":   {AllowInsecure: []string{"much"}},
		"Negative":   {Tries: -1},
		"Relative":   {AllowFiles: []string{"here"}},
	} {
		if _, err := image.Open(&image.Options{Dir: t.TempDir(), Sources: s}); caisson.KindOf(err) != caisson.ErrInvalid {
			t.Errorf("%s: Open = %v, want invalid", name, err)
		}
	}
}

// Who lets a daemon fetch the image gets it pinned.
func TestPermit(t *testing.T) {
	dir, private := keys(t)
	reg := imagetest.NewRegistry(t)
	img := small(t, "an image")
	ref := reg.Push(t, "team/app:1", img)
	free := reg.Push(t, "free/app:1", img)
	src := signed(t, reg, dir, "ecdsa.pub")
	src.Policies = append(src.Policies, image.Policy{Prefix: "docker-archive:", Action: image.ActionReject})
	s := pullStore(t, src)
	permit := func(ref string) (string, error) {
		return s.Permit(t.Context(), &image.Request{Ref: ref, Trusted: true})
	}
	_, err := permit(ref)
	wantError(t, err, caisson.ErrDenied, "not signed")
	_, err = permit("docker-archive:/srv/a.tar")
	wantError(t, err, caisson.ErrDenied, "rejects")
	imagetest.Sign(t, reg, "team/app", digestOf(t, img), private["ecdsa.pub"])
	if got, err := permit(ref); err != nil || got != reg.Host+"/team/app@"+digestOf(t, img) {
		t.Errorf("Permit = %s, %v, want it pinned", got, err)
	}
	before := reg.Count("GET manifests")
	if got, err := permit(free); err != nil || got != free || reg.Count("GET manifests") != before {
		t.Errorf("Permit of what needs no signature = %s, %v, want %s and nobody asked", got, err, free)
	}
}
