// Package source reads YAML and JSON text into values for package fields, each
// with its place. Of YAML 1.2 everything may be used but tags of its own, binary
// values and several documents in a text. It is bounded in time, memory and
// stack, whoever wrote the text.
package source

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson/internal/fields"
)

// maxDepth is how deep lists and mappings may lie in each other.
const maxDepth = 64

// Options are what is particular to one kind of text.
type Options struct {
	MaxSize   int    // bytes
	MaxValues int    // with what aliases stand for; 0: 100000
	Empty     string // what is said of a text with nothing in it; empty: "the document is empty"
	Second    string // what a file holds one of; empty: "document"
	// AnyJSON takes every character that JSON takes: the text comes from a
	// program, not from a person.
	AnyJSON bool
}

// Read reads data into a value. Name, such as a file's path, is what problems
// are reported under; a name that ends in .json takes JSON only. Where it
// returns problems the value may be nil.
func Read(name string, data []byte, o Options) (*fields.Value, []fields.Problem) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if o.MaxValues == 0 {
		o.MaxValues = 100_000
	}
	s := &sourceReader{file: name, options: o}
	switch {
	case len(data) > o.MaxSize:
		s.add(0, 0, "the document is larger than %d MiB", o.MaxSize>>20)
	case !s.readable(data):
	case json.Valid(data):
		return s.json(data), s.problems
	case strings.HasSuffix(strings.ToLower(name), ".json"):
		s.jsonError(data)
	default:
		value := s.yaml(data)
		if len(s.problems) > 0 && looksLikeJSON(data) {
			s.problems = nil
			s.jsonError(data)
		}
		return value, s.problems
	}
	return nil, s.problems
}

// sourceReader turns text into values and counts what it makes.
type sourceReader struct {
	file     string
	options  Options
	problems []fields.Problem
	values   int // made so far
	text     int // bytes of text in them
	tooLarge bool
}

func (s *sourceReader) add(line, column int, format string, args ...any) {
	s.problems = append(s.problems, fields.Problem{
		File: s.file, Line: line, Column: column, Message: fmt.Sprintf(format, args...),
	})
}

// count reports whether one more value with so much text is within bounds.
func (s *sourceReader) count(line, column, text int) bool {
	s.values++
	s.text += text
	if s.values <= s.options.MaxValues && s.text <= 4*s.options.MaxSize {
		return true
	}
	if !s.tooLarge {
		s.tooLarge = true
		s.add(line, column, "the document has more than %d values or %d MiB of text, with what its aliases stand for",
			s.options.MaxValues, 4*s.options.MaxSize>>20)
	}
	return false
}

// readable reports the first character that no document may have.
func (s *sourceReader) readable(data []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			s.add(line, column, "the document is not UTF-8 text: byte %#02x", data[i])
			return false
		case c == '\n':
			line, column = line+1, 0
		case !s.options.AnyJSON && c != '\t' && c != '\r' && c != '\u0085' && unicode.Is(unicode.Cc, c):
			s.add(line, column, "the control character %U can't stand in a document; "+
				"in double quotes write it as an escape", c)
			return false
		}
		column++
		i += size
	}
	return true
}

// looksLikeJSON reports whether data begins as a JSON object with a member
// does; YAML's own flow mappings seldom have their keys in double quotes.
func looksLikeJSON(data []byte) bool {
	rest, found := bytes.CutPrefix(bytes.TrimSpace(data), []byte("{"))
	return found && bytes.HasPrefix(bytes.TrimSpace(rest), []byte(`"`))
}
