// Package document reads task documents: YAML or JSON text becomes a
// caisson.Task, or a list of everything that is wrong with it, each with its
// line. The fields are described in one table, of which the JSON Schema and
// the tables of docs/task.md are made too.
//
// Of YAML 1.2 a document may use everything but tags of its own, binary values
// and several documents in a file. Anchors, aliases and merge keys (<<) work,
// within bounds. Where a text is wanted, a number, true or false is taken as it
// is written if the table says so, and refused otherwise; nothing is guessed.
package document

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
	reader "github.com/caissonrun/caisson/internal/source"
)

// MaxSize is the most bytes that a document may have.
const MaxSize = 4 << 20

// Parse reads the document data. Name, such as a file's path, is what problems
// are reported under.
//
// Errors: Problems, of kind ErrInvalid, with everything that is wrong.
func Parse(name string, data []byte) (*caisson.Task, error) {
	value, problems := source(name, data)
	if value == nil {
		return nil, Problems(problems)
	}
	plain, more := fields.Read(name, value, table())
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, Problems(problems)
	}
	return build(plain)
}

// source reads data into a value. Where it returns problems the value may be
// nil.
func source(name string, data []byte) (*fields.Value, []fields.Problem) {
	return reader.Read(name, data, reader.Options{
		MaxSize: MaxSize, Second: "task",
		Empty: `the document is empty; it needs at least a "run", "cmd" or "image"`,
	})
}

// build makes a task of what the table has found to be right.
func build(plain any) (*caisson.Task, error) {
	data, err := json.Marshal(plain)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrInternal, Err: err}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	task := &caisson.Task{}
	if err := dec.Decode(task); err != nil {
		return nil, &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrInternal, Err: err}
	}
	return task, nil
}

// Marshal returns task as an indented JSON document that Parse reads as the
// same task.
func Marshal(task *caisson.Task) ([]byte, error) {
	data, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&plain); err != nil {
		return nil, err
	}
	// An input with neither a URL nor contents is an empty file, whose contents
	// a document has to name.
	inputs, _ := plain["inputs"].([]any)
	for _, in := range inputs {
		m := in.(map[string]any)
		if m["from"] == nil && m["text"] == nil {
			m["text"] = ""
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err = enc.Encode(plain)
	return out.Bytes(), err
}

// Check returns what Parse would say of a task that was not read from a
// document, such as one made of flags: nil or Problems without lines.
func Check(task *caisson.Task) error {
	data, err := Marshal(task)
	if err != nil {
		return &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrInvalid, Err: err}
	}
	_, err = Parse("", data)
	var problems Problems
	if !errors.As(err, &problems) {
		return err
	}
	for i := range problems {
		problems[i].Line, problems[i].Column = 0, 0
	}
	return problems
}

// Schema returns the JSON Schema (draft 2020-12) of a task document, for
// editors and other programs. What it refuses, Parse refuses; Parse refuses
// more, such as two inputs for one place.
func Schema() []byte {
	return fields.Schema(table(), map[string]any{
		"$id":         "urn:caisson:schema:task:1",
		"title":       "Caisson task",
		"description": "A task for Caisson: what to run, in which sandbox, on which data.",
	})
}

// A Problem is one thing that is wrong with a document: "task.yaml:3:5:
// limits.memroy: unknown key "memroy"; did you mean "memory"?".
type Problem = fields.Problem

// Problems is all that is wrong with a document, in the order of its lines. It
// is an error of kind caisson.ErrInvalid.
type Problems = fields.Problems
