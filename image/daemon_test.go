//go:build linux

package image_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/imagetest"
)

// program returns where a tool of scripts/setup is. It may be missing only for
// who can't install it.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Geteuid() == 0 {
		t.Fatalf("%s is needed (scripts/setup): %v", name, err)
	}
	if err != nil {
		t.Skipf("%s is not installed, and this is an ordinary user: %v", name, err)
	}
	return path
}

// certificate makes one for 127.0.0.1, signed by itself.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	cert = writeFile(t, filepath.Join(dir, "cert.pem"), text)
	key = writeFile(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return cert, key, pool
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// daemon starts Debian's docker-registry with https, and returns its host.
func daemon(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	path, dir := program(t, "docker-registry"), t.TempDir()
	cert, key, pool := certificate(t, dir)
	config := writeFile(t, filepath.Join(dir, "registry.yml"), fmt.Appendf(nil,
		"version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0', tls: {certificate: %s, key: %s}}\n",
		filepath.Join(dir, "data"), cert, key))
	cmd := exec.Command(path, "serve", config)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	host := make(chan string, 1)
	go func() {
		defer close(host)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if found := listening.FindStringSubmatch(lines.Text()); found != nil && len(host) == 0 {
				host <- found[1]
			}
		}
	}()
	where, ok := <-host
	if !ok {
		t.Fatal("docker-registry ended without listening")
	}
	return where, pool
}

func skopeo(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "skopeo"), append([]string{"--insecure-policy", "copy"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo copy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// What other programs write is what this package reads: the registry daemon,
// and each form that skopeo makes.
func TestRealRegistry(t *testing.T) {
	host, pool := daemon(t)
	dir := t.TempDir()
	want := imagetest.Busybox(t, imagetest.File("etc/test", noise(30, 100_000)))
	id, err := want.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	imagetest.Layout(t, filepath.Join(dir, "layout"), map[string]v1.Image{"1": want})
	from := "oci:" + filepath.Join(dir, "layout") + ":1"
	skopeo(t, "--dest-tls-verify=false", from, "docker://"+host+"/team/app:1")
	skopeo(t, "--dest-tls-verify=false", "--format=v2s2", from, "docker://"+host+"/team/app:docker")
	skopeo(t, from, "docker-archive:"+filepath.Join(dir, "docker.tar")+":app:1")
	skopeo(t, from, "oci-archive:"+filepath.Join(dir, "oci.tar")+":1")
	skopeo(t, "--dest-oci-accept-uncompressed-layers", from, "oci:"+filepath.Join(dir, "copy")+":1")

	src := sources(t, nil)
	src.RootCAs = pool
	s := pullStore(t, src)
	for ref, same := range map[string]bool{
		host + "/team/app:1":                                       true,
		host + "/team/app@" + digestOf(t, want):                    true,
		host + "/team/app:docker":                                  false, // skopeo writes another configuration
		"docker-archive:" + filepath.Join(dir, "docker.tar"):       false,
		"docker-archive:" + filepath.Join(dir, "docker.tar:app:1"): false,
		"oci-archive:" + filepath.Join(dir, "oci.tar"):             true,
		"oci-archive:" + filepath.Join(dir, "oci.tar:1"):           true,
		"oci:" + filepath.Join(dir, "copy:1"):                      true,
	} {
		img := mustGet(t, s, &image.Request{Ref: ref})
		if img.Layers != 2 || len(img.Config.Cmd) != 1 || same && img.ID != id.String() {
			t.Errorf("%s = %+v, want image %s with 2 layers", ref, img, id)
		}
		lease := &image.Lease{Owner: "test/" + ref, Mode: image.ModeCopy}
		fs, err := s.RootFS(t.Context(), img, lease)
		if err != nil {
			t.Errorf("%s: RootFS = %v", ref, err)
			continue
		}
		if data := readFile(t, filepath.Join(fs.Path, "etc/test")); string(data) != noise(30, 100_000) {
			t.Errorf("%s: a file of the image has other contents", ref)
		}
		if err := s.Unlease(t.Context(), lease.Owner); err != nil {
			t.Error(err)
		}
	}
	_, err = get(t, s, host+"/team/app:2")
	wantError(t, err, caisson.ErrNotFound, `"2"`)
	_, err = get(t, s, host+"/team/nothing:1")
	wantError(t, err, caisson.ErrNotFound, "nothing")
	_, err = s.Get(t.Context(), &image.Request{Ref: host + "/team/app:1", Platform: "linux/s390x", Trusted: true})
	wantError(t, err, caisson.ErrNotFound, "linux/s390x", "linux/amd64")
}

// A registry that is gone is one to ask again later.
func TestRegistryDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	listener.Close()
	_, err = get(t, pullStore(t, sources(t, nil)), host+"/app:1")
	wantError(t, err, caisson.ErrUnavailable, host, "refused")
}

// TestModuleRealRegistry holds that a registry's own program serves modules.
func TestModuleRealRegistry(t *testing.T) {
	host, pool := daemon(t)
	s := pullStore(t, image.Sources{AuthFile: authFile(t, `{}`), RootCAs: pool, AllowPrivate: true})
	dir := t.TempDir()
	img := imagetest.Module(t, "wasm", wasmType, wasmConfig)
	imagetest.Layout(t, filepath.Join(dir, "layout"), map[string]v1.Image{"v1": img})
	skopeo(t, "--dest-tls-verify=false", "oci:"+filepath.Join(dir, "layout")+":v1", "docker://"+host+"/team/module:1")
	for _, ref := range []string{host + "/team/module:1", host + "/team/module@" + digestOf(t, img), "oci:" + filepath.Join(dir, "layout") + ":v1"} {
		if got, err := module(t, s, &image.Request{Ref: ref, Trusted: true}); err != nil || got != "wasm" {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
}
