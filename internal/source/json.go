package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caissonrun/caisson/internal/fields"
)

// jsonError reports the syntax error of data, which is not valid JSON.
func (s *sourceReader) jsonError(data []byte) {
	var whole json.RawMessage
	err := json.Unmarshal(data, &whole)
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		s.add(0, 0, "not valid JSON: %v", err)
		return
	}
	at := place{data: data}
	line, column := at.find(int(syntax.Offset) - 1)
	if strings.Contains(syntax.Error(), "unexpected end") {
		line, column = at.find(len(data))
	}
	s.add(line, column, "not valid JSON: %s", syntax.Error())
}

// json reads valid JSON.
func (s *sourceReader) json(data []byte) *fields.Value {
	r := &jsonReader{sourceReader: s, dec: json.NewDecoder(bytes.NewReader(data)), at: place{data: data}}
	r.dec.UseNumber()
	return r.value(0)
}

type jsonReader struct {
	*sourceReader
	dec *json.Decoder
	at  place
}

// next returns the next token and where it begins.
func (r *jsonReader) next() (token json.Token, line, column int) {
	start := int(r.dec.InputOffset())
	for start < len(r.at.data) && strings.IndexByte(" \t\r\n,:", r.at.data[start]) >= 0 {
		start++
	}
	line, column = r.at.find(start)
	token, _ = r.dec.Token() // the text is known to be valid
	return token, line, column
}

// value reads one value.
func (r *jsonReader) value(depth int) *fields.Value {
	token, line, column := r.next()
	v := &fields.Value{Line: line, Column: column}
	switch t := token.(type) {
	case nil:
		v.Kind = fields.Null
	case bool:
		v.Kind, v.Text = fields.Bool, strconv.FormatBool(t)
	case json.Number:
		v.Kind, v.Text = fields.Int, t.String()
		if strings.ContainsAny(v.Text, ".eE") {
			v.Kind = fields.Float
		}
	case string:
		v.Kind, v.Text = fields.String, t
	case json.Delim:
		r.compound(v, t, depth)
	}
	if !r.count(line, column, len(v.Text)) {
		v.Kind = fields.Broken
	}
	return v
}

// compound reads the rest of a list or an object.
func (r *jsonReader) compound(v *fields.Value, delim json.Delim, depth int) {
	v.Kind = fields.Map
	if delim == '[' {
		v.Kind = fields.List
	}
	if depth == maxDepth {
		r.add(v.Line, v.Column, "lists and mappings lie more than %d deep in each other", maxDepth)
		r.tooLarge = true
	}
	for r.dec.More() && !r.tooLarge {
		if v.Kind == fields.List {
			v.Items = append(v.Items, r.value(depth+1))
			continue
		}
		token, line, column := r.next()
		key, _ := token.(string)
		v.Keys = append(v.Keys, fields.Entry{Key: key, Value: r.value(depth + 1), Line: line, Column: column})
	}
	if r.tooLarge {
		v.Kind = fields.Broken
		return
	}
	r.next() // the closing bracket
}

// place finds lines and columns of offsets that only grow.
type place struct {
	data   []byte
	offset int
	line   int // of offset, from 0
	column int // of offset, from 0
}

func (p *place) find(offset int) (line, column int) {
	offset = max(p.offset, min(offset, len(p.data)))
	passed := p.data[p.offset:offset]
	if i := bytes.LastIndexByte(passed, '\n'); i >= 0 {
		p.line += bytes.Count(passed, []byte("\n"))
		p.column, passed = 0, passed[i+1:]
	}
	p.column += utf8.RuneCount(passed)
	p.offset = offset
	return p.line + 1, p.column + 1
}
