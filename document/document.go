// Package document reads task documents: YAML or JSON text becomes a
// caisson.Task, or a list of everything that is wrong with it.
package document

import "github.com/caissonrun/caisson"

// MaxSize is the most bytes that a document may have.
const MaxSize = 4 << 20

// Parse reads the document data. Name, such as a file's path, is what problems
// are reported under.
//
// Errors: Problems, of kind ErrInvalid, with everything that is wrong.
func Parse(name string, data []byte) (*caisson.Task, error) { panic("todo") }

// Marshal returns task as a JSON document that Parse reads as the same task.
func Marshal(task *caisson.Task) ([]byte, error) { panic("todo") }

// Check returns what Parse would say of a task that was not read from a
// document, such as one made of flags: nil or Problems without lines.
func Check(task *caisson.Task) error { panic("todo") }

// Schema returns the JSON Schema (draft 2020-12) of a task document.
func Schema() []byte { panic("todo") }

// A Problem is one thing that is wrong with a document.
type Problem struct {
	File    string // the name given to Parse; may be empty
	Line    int    // from 1; 0 where not known
	Column  int    // from 1, in characters; 0 where not known
	Path    string // "inputs[0].to"; empty for the whole document
	Message string // what is wrong and what would be right
}

// Problems is all that is wrong with a document, in the order of its lines. It
// is an error of kind caisson.ErrInvalid.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string { panic("todo") }

// Is reports whether target is caisson.ErrInvalid.
func (p Problems) Is(target error) bool { return target == caisson.ErrInvalid }
