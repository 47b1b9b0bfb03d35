//go:build unix

package image_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// as is a request with credentials of the task's own.
func as(ref, user, password string) *image.Request {
	return &image.Request{Ref: ref, Username: user, Password: password, Trusted: true}
}

// What one task's credentials brought here is for nobody else.
func TestCredentials(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		t.Run(fmt.Sprintf("Bearer=%v", bearer), func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			ref := reg.Push(t, "team/private:1", small(t, noise(10, 1000)))
			reg.Users(map[string]string{"ann": "secret-of-ann", "bob": "secret-of-bob"}, bearer)
			s := pullStore(t, sources(t, reg))

			_, err := get(t, s, ref)
			wantError(t, err, caisson.ErrDenied, "no access")
			_, err = s.Get(t.Context(), as(ref, "ann", "wrong"))
			wantError(t, err, caisson.ErrDenied)
			if strings.Contains(err.Error(), "wrong") {
				t.Errorf("the password is in the error %q", err)
			}
			if _, err := s.Get(t.Context(), as(ref, "ann", "secret-of-ann")); err != nil {
				t.Fatalf("with credentials: %v", err)
			}

			// The image is here now. It stays out of reach of those without
			// credentials, and of those with wrong ones for the same name.
			for _, pull := range []image.Pull{image.PullMissing, image.PullAlways, image.PullNever} {
				for _, req := range []*image.Request{{Ref: ref, Trusted: true}, as(ref, "ann", "wrong"), as(ref, "eve", "secret-of-ann")} {
					req.Pull = pull
					_, err := s.Get(t.Context(), req)
					wantError(t, err, caisson.ErrDenied)
				}
			}
			// Her other tasks use it with nobody being asked.
			before := reg.Count("GET manifests")
			if _, err := s.Get(t.Context(), as(ref, "ann", "secret-of-ann")); err != nil || reg.Count("GET manifests") != before {
				t.Errorf("a second time: %v after %d requests", err, reg.Count("GET manifests")-before)
			}
			// Somebody else with a right to it is asked for that, and gets no bytes again.
			blobs := reg.Count("GET blobs")
			if _, err := s.Get(t.Context(), as(ref, "bob", "secret-of-bob")); err != nil {
				t.Fatalf("with other credentials: %v", err)
			}
			if n := reg.Count("GET blobs") - blobs; n > 1 || reg.Count("HEAD blobs") == 0 {
				t.Errorf("%d blobs were fetched again and %d asked for, want the configuration at most", n, reg.Count("HEAD blobs"))
			}
			list, err := s.List(t.Context())
			if err != nil || len(list) != 1 || !list[0].Private {
				t.Errorf("List = %+v, %v, want one private image", list, err)
			}
		})
	}
}

// foreignLayer is a layer that only its description is known of.
type foreignLayer struct {
	v1.Layer
	digest, diffID v1.Hash
	size           int64
}

func (l *foreignLayer) Digest() (v1.Hash, error) { return l.digest, nil }
func (l *foreignLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
func (l *foreignLayer) Size() (int64, error)     { return l.size, nil }

// Who only knows the digest of a private layer does not get at it through a
// registry of his own that claims to have it.
func TestStolenLayer(t *testing.T) {
	reg, evil := imagetest.NewHTTPRegistry(t), imagetest.NewHTTPRegistry(t)
	private := small(t, noise(11, 5000))
	ref := reg.Push(t, "private:1", private)
	reg.Users(map[string]string{"ann": "secret"}, false)
	src := sources(t, nil)
	src.HTTP = []string{reg.Host, evil.Host}
	s := pullStore(t, src)
	if _, err := s.Get(t.Context(), as(ref, "ann", "secret")); err != nil {
		t.Fatal(err)
	}

	layers, err := private.Layers()
	if err != nil {
		t.Fatal(err)
	}
	stolen := &foreignLayer{Layer: static.NewLayer([]byte("x"), types.OCILayer)}
	if stolen.digest, err = layers[0].Digest(); err != nil {
		t.Fatal(err)
	}
	if stolen.diffID, err = layers[0].DiffID(); err != nil {
		t.Fatal(err)
	}
	if stolen.size, err = layers[0].Size(); err != nil {
		t.Fatal(err)
	}
	img := imagetest.Image(t, nil, stolen)
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	bait := evil.PushRaw(t, "bait:1", string(types.OCIManifestSchema1), manifest)
	evil.Break(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		switch {
		case !strings.Contains(r.URL.Path, "/blobs/"):
			return false
		case r.Method == http.MethodHead: // it says that it has whatever is asked for
			w.WriteHeader(http.StatusOK)
		case strings.Contains(r.URL.Path, stolen.digest.Hex):
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(config)
		}
		return true
	})
	_, err = get(t, s, bait)
	wantError(t, err, caisson.ErrNotFound, stolen.digest.Hex)
	if _, err := get(t, s, ref); err == nil {
		t.Error("the image itself is open to everybody")
	}
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestAuthFile(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "team/app:1", small(t, "x"))
	reg.Users(map[string]string{"op": "secret"}, true)
	for name, text := range map[string]string{
		"Auth":     fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, reg.Host, basic("op", "secret")),
		"URL":      fmt.Sprintf(`{"auths": {"https://%s/v2/": {"auth": %q}}}`, reg.Host, basic("op", "secret")),
		"Password": fmt.Sprintf(`{"auths": {%q: {"username": "op", "password": "secret"}}}`, reg.Host),
		"Folder":   fmt.Sprintf(`{"auths": {%q: {"auth": %q}, %q: {"auth": %q}}}`, reg.Host+"/team", basic("op", "secret"), reg.Host, basic("op", "no")),
	} {
		t.Run(name, func(t *testing.T) {
			src := sources(t, reg)
			src.AuthFile = authFile(t, text)
			s := pullStore(t, src)
			mustGet(t, s, &image.Request{Ref: ref})
			before := reg.Count("GET manifests")
			mustGet(t, s, &image.Request{Ref: ref})
			if reg.Count("GET manifests") != before {
				t.Error("what the operator's credentials brought is fetched again for the next task")
			}
		})
	}
	for name, test := range map[string]struct {
		text string
		kind caisson.Kind
	}{
		"Other":   {fmt.Sprintf(`{"auths": {"other.example.com": {"auth": %q}}}`, basic("op", "secret")), caisson.ErrDenied},
		"Wrong":   {fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, reg.Host, basic("op", "wrong")), caisson.ErrDenied},
		"NoText":  {`{"auths": `, caisson.ErrInvalid},
		"NoAuth":  {fmt.Sprintf(`{"auths": {%q: {"auth": "%%%%"}}}`, reg.Host), caisson.ErrInvalid},
		"NoColon": {fmt.Sprintf(`{"auths": {%q: {"auth": "aGVsbG8="}}}`, reg.Host), caisson.ErrInvalid},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			src := sources(t, reg)
			src.AuthFile = authFile(t, test.text)
			_, err := get(t, pullStore(t, src), ref)
			wantError(t, err, test.kind)
			if strings.Contains(err.Error(), "aGVsbG8=") || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells what is in the file: %v", err)
			}
		})
	}
	// A task that wants to do without protection does without them, too.
	src := sources(t, reg)
	src.AuthFile = authFile(t, fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, reg.Host, basic("op", "secret")))
	src.AllowInsecure = []string{"tls"}
	_, err := pullStore(t, src).Get(t.Context(), &image.Request{Ref: ref, InsecureOptions: []string{"tls"}, Trusted: true})
	wantError(t, err, caisson.ErrDenied, "no access")

	src = sources(t, reg)
	src.AuthFile = filepath.Join(t.TempDir(), "none")
	_, err = get(t, pullStore(t, src), ref)
	wantError(t, err, caisson.ErrInvalid, "none")
}

// helper puts a credential helper into PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestCredentialHelper(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	ref := reg.Push(t, "app:1", small(t, "x"))
	open := imagetest.NewRegistry(t)
	public := open.Push(t, "app:1", small(t, "x"))
	reg.Users(map[string]string{"op": "secret"}, false)
	perHost := fmt.Sprintf(`{"credHelpers": {%q: "caissontest"}}`, reg.Host)
	for name, test := range map[string]struct {
		config, script string
		kind           caisson.Kind
		words          string
	}{
		"OK":          {config: perHost, script: fmt.Sprintf(`read -r s; [ "$s" = %s ] && [ "$1" = get ] && echo '{"Username":"op","Secret":"secret"}'`, reg.Host)},
		"Store":       {config: `{"credsStore": "caissontest"}`, script: `cat >/dev/null; echo '{"Username":"op","Secret":"secret"}'`},
		"ErrNone":     {config: perHost, script: `cat >/dev/null; echo "credentials not found in native keychain"; exit 1`, kind: caisson.ErrDenied, words: "no access"},
		"ErrFails":    {config: perHost, script: `cat >/dev/null; echo hidden-words; exit 3`, kind: caisson.ErrUnavailable, words: "caissontest"},
		"ErrRubbish":  {config: perHost, script: `cat >/dev/null; echo hidden-words`, kind: caisson.ErrUnavailable, words: "answer"},
		"ErrHangs":    {config: perHost, script: `sleep 1000 & sleep 1000`, kind: caisson.ErrUnavailable, words: "no answer within"},
		"ErrFlood":    {config: perHost, script: `yes hidden-words`, kind: caisson.ErrUnavailable},
		"ErrMissing":  {config: strings.ReplaceAll(perHost, "caissontest", "caisson-has-none"), script: "", kind: caisson.ErrInvalid, words: "not in PATH"},
		"ErrNotAName": {config: strings.ReplaceAll(perHost, "caissontest", "../../bin/sh"), script: "", kind: caisson.ErrInvalid, words: "not the name"},
	} {
		t.Run(name, func(t *testing.T) {
			helper(t, "caissontest", test.script)
			src := sources(t, reg)
			src.AuthFile = authFile(t, test.config)
			if name == "ErrHangs" {
				src.Helper = 50 * time.Millisecond
			}
			_, err := get(t, pullStore(t, src), ref)
			if test.kind == 0 {
				if err != nil {
					t.Errorf("Get = %v", err)
				}
				return
			}
			wantError(t, err, test.kind, test.words)
			if strings.Contains(err.Error(), "hidden-words") {
				t.Errorf("the helper's output is in the error %q", err)
			}
		})
	}
	// A store that knows nothing of a registry does no harm.
	helper(t, "caissontest", `cat >/dev/null; echo "credentials not found in native keychain"; exit 1`)
	src := sources(t, open)
	src.AuthFile = authFile(t, `{"credsStore": "caissontest"}`)
	mustGet(t, pullStore(t, src), &image.Request{Ref: public})
}

func TestCredentialsErr(t *testing.T) {
	s := pullStore(t, sources(t, nil))
	_, err := s.Get(t.Context(), as("example.com/app", "ann", ""))
	wantError(t, err, caisson.ErrInvalid, "password")
	_, err = s.Get(t.Context(), as("oci:/srv/x", "ann", "secret"))
	wantError(t, err, caisson.ErrInvalid, "registries")
}
