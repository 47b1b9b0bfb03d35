package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// CheckTarget says what is wrong with the place that a mount has inside: it
// must be a clean path that is neither the root nor in what every sandbox has
// of its own. A relative one starts at the work folder.
//
// Errors: ErrInvalid.
func CheckTarget(m caisson.Mount) error {
	target := m.Target
	switch {
	case target == "":
		return Invalid(m, "target is missing: say where it goes inside")
	case strings.IndexByte(target, 0) >= 0:
		return Invalid(m, "target has a zero byte")
	case slices.Contains(strings.Split(target, "/"), ".."):
		return Invalid(m, "target has ..: use a clean path")
	}
	if !path.IsAbs(target) {
		target = path.Join(caisson.WorkDir, target)
	}
	target = path.Clean(target)
	if target == "/" {
		return Invalid(m, "target is the root: use a folder below it")
	}
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		if target == own || strings.HasPrefix(target, own+"/") && !strings.HasPrefix(target, "/dev/shm") {
			return Invalid(m, "target is in "+own+", which every sandbox has of its own")
		}
	}
	return nil
}

// CheckOpts refuses options that a mount of this type does not have.
//
// Errors: ErrInvalid.
func CheckOpts(m caisson.Mount, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(m.Opts)) {
		if slices.Contains(known, name) {
			continue
		}
		has := "it has none"
		if len(known) > 0 {
			has = "it has " + strings.Join(known, ", ")
		}
		return Invalid(m, fmt.Sprintf("no option %q: %s", name, has))
	}
	return nil
}

// ParseMode reads the permission bits of an option, in octal: those of a folder,
// and the sticky bit. Errors: ErrInvalid.
func ParseMode(m caisson.Mount, text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o1777 {
		return 0, Invalid(m, fmt.Sprintf("mode %q: use permission bits in octal, such as 0755 or 1777", text))
	}
	mode := fs.FileMode(n & 0o777)
	if n&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode, nil
}

// Invalid makes an error of kind ErrInvalid about a mount.
func Invalid(m caisson.Mount, why string) error {
	return &caisson.Error{Op: caisson.OpMount, Item: Item(m), Kind: caisson.ErrInvalid, Err: errors.New(why)}
}

// Item names a mount in messages.
func Item(m caisson.Mount) string { return fmt.Sprintf("%s at %q", m.Type, m.Target) }
