package stage

import (
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
)

// Destination returns where an output's file goes: out.To itself with the path
// of the file added, as a URL or path of the same form. If out.To ends in "/"
// it is a folder that gets all matches by their names; otherwise it becomes the
// one match itself, a file or a folder.
func Destination(out *caisson.Output, f *File) string {
	if strings.HasSuffix(out.To, "/") {
		return out.To + f.Rel
	}
	return out.To + strings.TrimPrefix(f.Path, f.Match)
}

// CheckDestinations says what is wrong with storing outputs together, before
// any of them is: files[i] are those of outs[i].
//
// Errors: ErrInvalid if an output has several matches and no folder for them,
// or if two files would go to the same place.
func CheckDestinations(outs []*caisson.Output, files [][]File) error {
	taken := map[string]string{}
	for i, out := range outs {
		if err := checkOneMatch(out, files[i]); err != nil {
			return err
		}
		for j := range files[i] {
			f := &files[i][j]
			to := strings.TrimSuffix(Destination(out, f), "/")
			if f.Mode.IsDir() {
				continue // folders are merged
			}
			if other, ok := taken[to]; ok && other != f.Path {
				return invalidOutput(out, fmt.Errorf("%q and %q both go to %q", other, f.Path, to))
			}
			taken[to] = f.Path
		}
	}
	return nil
}

// checkOneMatch refuses several matches for one place.
func checkOneMatch(out *caisson.Output, files []File) error {
	if strings.HasSuffix(out.To, "/") {
		return nil
	}
	matches := map[string]bool{}
	for i := range files {
		matches[files[i].Match] = true
	}
	if len(matches) > 1 {
		return invalidOutput(out, fmt.Errorf("%d files match: end to with a / to make %q a folder", len(matches), out.To))
	}
	return nil
}

func invalidOutput(out *caisson.Output, err error) error {
	return &caisson.Error{Op: caisson.OpStageOut, Item: fmt.Sprintf("%q", out.Path), Kind: caisson.ErrInvalid, Err: err}
}
