//go:build unix

package build

import "github.com/caissonrun/caisson/internal/safefs"

// Argv returns the arguments of buildctl.
func Argv(o *Options, dir, archive string) []string { return (&buildkit{}).argv(o, dir, archive) }

// Pack returns a folder as docker gets it.
var Pack = packFolder

// Ignored reports what a folder's .dockerignore says of a name.
func Ignored(dir, name string) (bool, error) {
	root, err := safefs.Open(dir, nil)
	if err != nil {
		return false, err
	}
	defer root.Close()
	ig, err := readIgnore(root, "Dockerfile")
	if err != nil {
		return false, err
	}
	return ig.match(name), nil
}
