// Package csv reads tables as people and programs write them and turns them
// into the one form in which storages keep them, fast enough that a disk is the
// limit: RFC 4180, UTF-8, "," between fields, every field in quotes, a quote
// doubled, LF at the end of each line.
//
// Because that form is the only one of a row, two rows are the same where their
// bytes are, and so are two fields: keys and filters compare bytes.
package csv

import (
	"bytes"
	"strings"
)

// Append appends value as a field, in quotes.
func Append(dst []byte, value string) []byte {
	dst = append(dst, '"')
	for {
		before, after, found := strings.Cut(value, `"`)
		dst = append(dst, before...)
		if !found {
			return append(dst, '"')
		}
		dst = append(dst, '"', '"')
		value = after
	}
}

// Field returns value as a field, in quotes.
func Field(value string) []byte { return Append(make([]byte, 0, len(value)+2), value) }

// Line returns a row of values, with its LF.
func Line(values []string) []byte {
	var line []byte
	for i, v := range values {
		if i > 0 {
			line = append(line, ',')
		}
		line = Append(line, v)
	}
	return append(line, '\n')
}

// Value returns what a field in quotes stands for.
func Value(field []byte) string {
	inner := field[1 : len(field)-1]
	if bytes.IndexByte(inner, '"') < 0 {
		return string(inner)
	}
	return strings.ReplaceAll(string(inner), `""`, `"`)
}

// Fields appends the fields of a row, in quotes, to fields. They share the
// memory of line, which must be in the one form.
func Fields(line []byte, fields [][]byte) [][]byte {
	for start := 0; start < len(line); {
		end := fieldEnd(line, start)
		if end < 0 {
			return fields
		}
		fields = append(fields, line[start:end])
		start = end + 1
	}
	return fields
}

// Values returns the values of a row.
func Values(line []byte) []string {
	var values []string
	for _, f := range Fields(line, nil) {
		values = append(values, Value(f))
	}
	return values
}

// Cut splits rows into the first, with its LF, and the others. Without a
// complete row, line is nil.
func Cut(rows []byte) (line, rest []byte) {
	for start := 0; ; {
		end := fieldEnd(rows, start)
		if end < 0 || end == len(rows) {
			return nil, rows
		}
		if rows[end] == '\n' {
			return rows[:end+1], rows[end+1:]
		}
		start = end + 1
	}
}

// fieldEnd returns where the field that starts at start ends, after its closing
// quote, or -1 if there is no closing quote.
func fieldEnd(b []byte, start int) int {
	for p := start + 1; ; p += 2 {
		// Most fields are short: a loop is over before a call would have begun.
		short := min(p+16, len(b))
		for p < short && b[p] != '"' {
			p++
		}
		if p >= short {
			n := -1
			if p < len(b) {
				n = bytes.IndexByte(b[p:], '"')
			}
			if n < 0 {
				return -1
			}
			p += n
		}
		if p+1 == len(b) || b[p+1] != '"' {
			return p + 1
		}
	}
}
