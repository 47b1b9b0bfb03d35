package component

import "github.com/caissonrun/caisson/internal/fields"

// A Problem is one thing that is wrong with a file of a component or a
// configuration.
type Problem = fields.Problem

// Problems is all that is wrong with a file. It is an error of kind
// caisson.ErrInvalid.
type Problems = fields.Problems

// problem returns Problems of one.
func problem(file, path, message string) Problems {
	return Problems{{File: file, Path: path, Message: message}}
}
