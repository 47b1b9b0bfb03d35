//go:build unix

package image

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A platform is what an image is built for. Parts that say no more than their
// absence would are empty: linux/arm64/v8 is linux/arm64.
type platform struct{ os, arch, variant string }

var platformText = regexp.MustCompile(`^[a-z0-9_.-]+/[a-z0-9_.-]+(/[a-z0-9_.-]+)?$`)

// parsePlatform reads a platform such as linux/arm/v7. Empty is this host's;
// images are for Linux wherever Caisson itself runs.
func parsePlatform(text string) (platform, error) {
	if text == "" {
		return newPlatform("linux", runtime.GOARCH, ""), nil
	}
	if len(text) > 100 || !platformText.MatchString(text) {
		return platform{}, invalid("platform %q: not OS/ARCHITECTURE[/VARIANT], such as linux/arm64", shorten(text))
	}
	parts := append(strings.Split(text, "/"), "")
	return newPlatform(parts[0], parts[1], parts[2]), nil
}

// aliases are other names of architectures, as uname and others have them.
var aliases = map[string]string{"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armv7l": "arm", "i386": "386", "i686": "386"}

// usual are the variants that are meant where none is given.
var usual = map[string]string{"amd64": "v1", "arm64": "v8", "arm": "v7"}

func newPlatform(os, arch, variant string) platform {
	p := platform{os: strings.ToLower(os), arch: strings.ToLower(arch), variant: strings.ToLower(variant)}
	if name := aliases[p.arch]; name != "" {
		p.arch = name
	}
	if p.variant == usual[p.arch] {
		p.variant = ""
	}
	return p
}

// String returns the platform as it is written in a request.
func (p platform) String() string {
	text := p.os + "/" + p.arch
	if p.variant != "" {
		text += "/" + p.variant
	}
	return text
}

// exactFit is the best that fit returns.
const exactFit = 1000

// fit says how well an image for have runs where p is wanted: not at all below
// 0, and better the larger it is. A processor also runs what is built for an
// older variant of its own.
func (p platform) fit(have platform) int {
	if p.os != have.os || p.arch != have.arch {
		return -1
	}
	if p.variant == have.variant {
		return exactFit
	}
	want, ok := p.level()
	got, known := have.level()
	if !ok || !known || got > want {
		return -1
	}
	return got
}

// level returns the number of a variant such as v7.
func (p platform) level() (int, bool) {
	variant := p.variant
	if variant == "" {
		variant = usual[p.arch]
	}
	digits, ok := strings.CutPrefix(variant, "v")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && n < 1000
}

// platformOf returns what a configuration says that it is for. Old images say
// nothing, and are then taken for what is wanted.
func platformOf(file *v1.ConfigFile, want platform) platform {
	if file.OS == "" && file.Architecture == "" {
		return want
	}
	return newPlatform(file.OS, file.Architecture, file.Variant)
}

// noPlatform says what there is instead of what is wanted.
func noPlatform(want platform, have []platform) error {
	var names []string
	seen := make(map[platform]bool)
	for _, p := range have {
		if !seen[p] && len(names) < 30 {
			names = append(names, shorten(p.String()))
		}
		seen[p] = true
	}
	if len(names) == 0 {
		return notFound("it has nothing for %s, nor for any other platform", want)
	}
	return notFound("not for platform %s: there is %s", want, fmt.Sprintf("%q", names))
}
