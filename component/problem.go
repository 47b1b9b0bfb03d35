package component

import "github.com/caissonrun/caisson/internal/fields"

// A Problem is one thing that is wrong with a file of a component or a
// configuration.
type Problem = fields.Problem

// Problems is all that is wrong with a file. It is an error of kind
// caisson.ErrInvalid, and of a type of its own: front doors tell it from what is
// wrong with a task's document.
type Problems fields.Problems

// Error returns one line for each problem.
func (p Problems) Error() string { return fields.Problems(p).Error() }

// Is reports whether target is caisson.ErrInvalid.
func (p Problems) Is(target error) bool { return fields.Problems(p).Is(target) }

// As sets a target of type *caisson.Kind, so that caisson.KindOf knows the kind.
func (p Problems) As(target any) bool { return fields.Problems(p).As(target) }

// problem returns Problems of one.
func problem(file, path, message string) Problems {
	return Problems{{File: file, Path: path, Message: message}}
}
