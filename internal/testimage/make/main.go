// Command make writes a test image where the flags say.
//
//	go run ./internal/testimage/make [flags] busybox|large|FILE.tar
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson/internal/testimage"
)

func main() {
	archive := flag.String("archive", "", "write a `file` as docker save does")
	ref := flag.String("name", "busybox:stable", "what the archive says that the image is called")
	layout := flag.String("layout", "", "add it to the OCI layout in `folder[:tag]`")
	push := flag.String("push", "", "push it to `host/name:tag`")
	size := flag.Int("size", 300<<20, "how large the image large is, in `bytes`")
	user := flag.String("user", "", "the image's user")
	flag.Parse()
	if err := run(flag.Arg(0), *size, *user, *archive, *ref, *layout, *push); err != nil {
		fmt.Fprintln(os.Stderr, "testimage:", err)
		os.Exit(1)
	}
}

func run(kind string, size int, user, archive, ref, layout, push string) error {
	img, err := build(kind, size, user)
	if err == nil && archive != "" {
		err = testimage.WriteArchive(img, archive, ref)
	}
	if err == nil && layout != "" {
		dir, tag, ok := strings.Cut(layout, ":")
		if !ok {
			tag = "latest"
		}
		err = testimage.WriteLayout(img, dir, tag)
	}
	if err == nil && push != "" {
		err = testimage.Push(img, push)
	}
	return err
}

func build(kind string, size int, user string) (v1.Image, error) {
	switch {
	case kind == "busybox":
		return testimage.Busybox(v1.Config{User: user})
	case kind == "large":
		return testimage.Large(size)
	case strings.HasSuffix(kind, ".tar"):
		return testimage.FromTar(kind, v1.Config{
			User: user, Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		})
	}
	return nil, fmt.Errorf("which image? busybox, large or FILE.tar, not %q", kind)
}
