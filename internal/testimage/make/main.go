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
	var config v1.Config
	flag.StringVar(&config.User, "user", "", "the image's user")
	entrypoint := flag.String("entrypoint", "", "what an image of FILE.tar runs: `words`")
	flag.Parse()
	config.Entrypoint = strings.Fields(*entrypoint)
	if err := run(flag.Arg(0), *size, config, *archive, *ref, *layout, *push); err != nil {
		fmt.Fprintln(os.Stderr, "testimage:", err)
		os.Exit(1)
	}
}

func run(kind string, size int, config v1.Config, archive, ref, layout, push string) error {
	img, err := build(kind, size, config)
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

func build(kind string, size int, config v1.Config) (v1.Image, error) {
	switch {
	case kind == "busybox":
		return testimage.Busybox(config)
	case kind == "large":
		return testimage.Large(size)
	case strings.HasSuffix(kind, ".tar"):
		if len(config.Entrypoint) == 0 {
			config.Cmd = []string{"sh"}
		}
		config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		return testimage.FromTar(kind, config)
	}
	return nil, fmt.Errorf("which image? busybox, large or FILE.tar, not %q", kind)
}
