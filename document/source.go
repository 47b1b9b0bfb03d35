package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson/internal/fields"
)

// Bounds of a document, so that none can use up time, memory or stack.
const (
	maxDepth  = 64      // of lists and mappings in each other
	maxValues = 100_000 // with what aliases stand for
	maxText   = 4 * MaxSize
)

// source reads data into a value. Where it returns problems the value may be
// nil.
func source(name string, data []byte) (*fields.Value, []fields.Problem) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	s := &sourceReader{file: name}
	switch {
	case len(data) > MaxSize:
		s.add(0, 0, "the document is larger than %d MiB", MaxSize>>20)
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
	if s.values <= maxValues && s.text <= maxText {
		return true
	}
	if !s.tooLarge {
		s.tooLarge = true
		s.add(line, column, "the document has more than %d values or %d MiB of text, with what its aliases stand for",
			maxValues, maxText>>20)
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
		case c != '\t' && c != '\r' && c != '\u0085' && unicode.Is(unicode.Cc, c):
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
