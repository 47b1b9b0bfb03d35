//go:build unix

package build

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/caissonrun/caisson/internal/safefs"
)

// ignoreName is the file that says what is not sent to a builder.
const ignoreName = ".dockerignore"

// ignore is what a .dockerignore says. Of several patterns that match, the
// last counts.
type ignore struct {
	patterns   []pattern
	exceptions bool   // some patterns take back what others leave out
	always     string // what is sent all the same: the Dockerfile
}

type pattern struct {
	glob   string
	except bool
}

func readIgnore(root *safefs.Root, dockerfile string) (*ignore, error) {
	ig := &ignore{always: path.Clean(dockerfile)}
	data, err := root.ReadFile(ignoreName, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return ig, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p := pattern{}
		if line, p.except = strings.CutPrefix(line, "!"); p.except {
			ig.exceptions = true
		}
		p.glob = strings.TrimPrefix(path.Clean("/"+strings.TrimSpace(line)), "/")
		if !doublestar.ValidatePattern(p.glob) {
			return nil, fmt.Errorf("%s: %q is not a pattern", ignoreName, line)
		}
		ig.patterns = append(ig.patterns, p)
	}
	return ig, nil
}

// match reports whether a file, by its path in the folder, is left out. A
// pattern that matches a folder matches what is in it.
func (ig *ignore) match(name string) bool {
	if name == ig.always || name == ignoreName || strings.HasPrefix(ig.always, name+"/") {
		return false
	}
	out := false
	for _, p := range ig.patterns {
		for at := name; at != "."; at = path.Dir(at) {
			if ok, _ := doublestar.Match(p.glob, at); ok {
				out = !p.except
				break
			}
		}
	}
	return out
}
