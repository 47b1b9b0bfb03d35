package fields

import (
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
)

// A Problem is one thing that is wrong with a document, a configuration or a
// file of a component.
type Problem struct {
	File    string // its name, or a variable's, or "flag"; may be empty
	Line    int    // from 1; 0 where not known
	Column  int    // from 1, in characters; 0 where not known
	Path    string // "inputs[0].to", "engine.oci.runtime"; empty for the whole
	Message string // what is wrong and what would be right; never a secret
}

// String returns the problem on one line, as "FILE:LINE:COLUMN: PATH: MESSAGE"
// without the parts that are not known.
func (p Problem) String() string {
	var parts []string
	place := p.File
	if p.Line > 0 {
		if place == "" {
			place = "line "
		} else {
			place += ":"
		}
		place += fmt.Sprintf("%d:%d", p.Line, p.Column)
	}
	for _, part := range []string{place, p.Path, p.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Problems is all that is wrong with one of them, in the order of its lines. It
// is an error of kind caisson.ErrInvalid.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Is reports whether target is caisson.ErrInvalid.
func (p Problems) Is(target error) bool { return target == caisson.ErrInvalid }

// As sets a target of type *caisson.Kind, so that caisson.KindOf knows the kind.
func (p Problems) As(target any) bool {
	kind, ok := target.(*caisson.Kind)
	if ok {
		*kind = caisson.ErrInvalid
	}
	return ok
}
