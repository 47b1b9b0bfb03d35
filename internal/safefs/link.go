package safefs

import "strings"

// LinkInside reports whether a symbolic link at name (relative to a folder,
// clean) with this target leads to nothing outside of the folder, whatever
// other links that pass the same test are in it. Only targets of the form
// "../../a/b", with no more ".." than there are folders above name, do: a ".."
// further on would start from wherever a link before it leads to.
func LinkInside(name, target string) bool {
	if target == "" || strings.HasPrefix(target, "/") || strings.IndexByte(target, 0) >= 0 {
		return false
	}
	depth, down := strings.Count(name, "/"), false
	for element := range strings.SplitSeq(target, "/") {
		switch element {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 {
				return false
			}
		default:
			down = true
		}
	}
	return true
}
