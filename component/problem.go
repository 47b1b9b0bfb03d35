package component

import (
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A Problem is one thing that is wrong with a file of a component or a
// configuration.
type Problem struct {
	File    string // may be empty
	Line    int    // from 1; 0 where not known
	Column  int    // from 1, in characters; 0 where not known
	Path    string // "storage.input.tables[0].source"; empty for the whole
	Message string // what is wrong and what would be right; never a secret
}

// String returns the problem on one line.
func (p Problem) String() string { return fields.Problem(p).String() }

// Problems is all that is wrong with a file. It is an error of kind
// caisson.ErrInvalid.
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

func asProblems(found []fields.Problem) Problems {
	out := make(Problems, len(found))
	for i, p := range found {
		out[i] = Problem(p)
	}
	return out
}

// problem returns Problems of one.
func problem(file, path, message string) Problems {
	return Problems{{File: file, Path: path, Message: message}}
}
