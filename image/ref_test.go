//go:build unix

package image_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
)

const someHex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	for text, want := range map[string]string{
		"busybox":                                    "docker.io/library/busybox:latest",
		"busybox:stable":                             "docker.io/library/busybox:stable",
		"docker://busybox:stable":                    "docker.io/library/busybox:stable",
		"docker.io/busybox":                          "docker.io/library/busybox:latest",
		"index.docker.io/library/busybox":            "docker.io/library/busybox:latest",
		"team/app":                                   "docker.io/team/app:latest",
		"localhost/app":                              "localhost/app:latest",
		"localhost:5000/app":                         "localhost:5000/app:latest",
		"example.com/a/b/c:1.0_x-Y":                  "example.com/a/b/c:1.0_x-Y",
		"[::1]:5000/app:1":                           "[::1]:5000/app:1",
		"app@sha256:" + someHex:                      "docker.io/library/app@sha256:" + someHex,
		"app:tag@sha256:" + someHex:                  "docker.io/library/app@sha256:" + someHex,
		"oci:/srv/layout":                            "oci:/srv/layout",
		"oci:/srv//x/../layout:v1":                   "oci:/srv/layout:v1",
		"oci:dir:example.com/app:1":                  "oci:dir:example.com/app:1",
		"oci-archive:a.tar":                          "oci-archive:a.tar",
		"docker-archive:a.tar:busybox:1":             "docker-archive:a.tar:busybox:1",
		"https://h/a.tar#sha256=" + someHex:          "https://h/a.tar#sha256=" + someHex,
		"https://h:1/a?x=1#tag=v1&sha256=" + someHex: "https://h:1/a?x=1#sha256=" + someHex + "&tag=v1",
	} {
		ref, err := image.ParseReference(text)
		if err != nil || ref.String() != want {
			t.Errorf("ParseReference(%q) = %v, %v, want %s", text, ref, err, want)
			continue
		}
		again, err := image.ParseReference(ref.String())
		if err != nil || *again != *ref {
			t.Errorf("ParseReference(%q) = %+v, %v, want %+v", ref, again, err, ref)
		}
	}
}

func TestParseReferenceErr(t *testing.T) {
	for text, want := range map[string]caisson.Kind{
		"": caisson.ErrInvalid, "Busybox": caisson.ErrInvalid, "a b": caisson.ErrInvalid, "a\nb": caisson.ErrInvalid, ":tag": caisson.ErrInvalid,
		"app@sha256:12": caisson.ErrInvalid, "app@sha512:" + someHex + someHex: caisson.ErrInvalid, someHex: caisson.ErrInvalid,
		"app:": caisson.ErrInvalid, "-x": caisson.ErrInvalid, "../x": caisson.ErrInvalid, "docker://": caisson.ErrInvalid,
		"oci:": caisson.ErrInvalid, "oci:dir:": caisson.ErrInvalid, "docker-archive:": caisson.ErrInvalid,
		"https://h/a.tar": caisson.ErrInvalid, "https://h/a.tar#sha256=12": caisson.ErrInvalid, "https://u:p@h/a#sha256=" + someHex: caisson.ErrInvalid,
		"https:///a#sha256=" + someHex: caisson.ErrInvalid, "https://h/a#md5=12": caisson.ErrInvalid, "http://h/a.tar#sha256=" + someHex: caisson.ErrInvalid,
		strings.Repeat("a", 5000):        caisson.ErrInvalid,
		"example.com/etcd,version=3.1.0": caisson.ErrUnsupported, "https://h/etcd.aci": caisson.ErrUnsupported, "etcd.aci": caisson.ErrUnsupported,
		"sha512-0123456789abcdef": caisson.ErrUnsupported, "docker-daemon:busybox": caisson.ErrUnsupported, "ftp://h/x": caisson.ErrUnsupported,
	} {
		ref, err := image.ParseReference(text)
		if caisson.KindOf(err) != want || err == nil {
			t.Errorf("ParseReference(%.80q) = %v, %v, want %v", text, ref, err, want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("ParseReference(%.80q): more than a line: %v", text, err)
		}
	}
	_, err := image.ParseReference("example.com/etcd,version=3.1.0")
	if !errors.Is(err, caisson.ErrUnsupported) || !strings.Contains(err.Error(), "ACI") {
		t.Errorf("an ACI image is not refused by its name: %v", err)
	}
}

func FuzzParseReference(f *testing.F) {
	for _, text := range []string{"busybox", "oci:a:b", "docker-archive:x:y:z", "https://h/a#sha256=" + someHex, "a@sha256:" + someHex, "docker://[::1]:1/a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := image.ParseReference(text)
		if err != nil {
			return
		}
		again, err := image.ParseReference(ref.String())
		if err != nil || again.String() != ref.String() {
			t.Errorf("%q is %q, and that is %v, %v", text, ref, again, err)
		}
	})
}
