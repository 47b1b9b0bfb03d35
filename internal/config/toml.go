package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/caissonrun/caisson/internal/fields"
)

// parseTOML reads a file's text into a mapping with places.
func parseTOML(file string, data []byte) (*fields.Value, []fields.Problem) {
	var plain map[string]any
	if err := toml.Unmarshal(data, &plain); err != nil {
		problem := fields.Problem{File: file, Message: "not valid TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			problem.Line, problem.Column = decode.Position()
		}
		return nil, []fields.Problem{problem}
	}
	return findPlaces(data).value(plain, ""), nil
}

// A spot is a line and column, from 1.
type spot struct{ line, column int }

// places are where keys and values stand, by their path: what the tokenizer of
// the TOML library has found.
type places struct{ keys, values map[string]spot }

// value makes a value of what the library has decoded.
func (p *places) value(plain any, path string) *fields.Value {
	at, ok := p.values[path]
	if !ok {
		at = p.keys[path] // of a table, for instance
	}
	v := &fields.Value{Line: at.line, Column: at.column}
	switch x := plain.(type) {
	case string:
		v.Kind, v.Text = fields.String, x
	case bool:
		v.Kind, v.Text = fields.Bool, strconv.FormatBool(x)
	case int64:
		v.Kind, v.Text = fields.Int, strconv.FormatInt(x, 10)
	case float64:
		v.Kind, v.Text = fields.Float, strconv.FormatFloat(x, 'g', -1, 64)
	case []any:
		v.Kind = fields.List
		for i, item := range x {
			v.Items = append(v.Items, p.value(item, fmt.Sprintf("%s[%d]", path, i)))
		}
	case map[string]any:
		v.Kind = fields.Map
		for _, key := range slices.Sorted(maps.Keys(x)) {
			below := fields.Join(path, key)
			at := p.keys[below]
			v.Keys = append(v.Keys, fields.Entry{Key: key, Value: p.value(x[key], below), Line: at.line, Column: at.column})
		}
	default: // dates and times
		v.Kind, v.Text = fields.String, fmt.Sprint(x)
	}
	return v
}

// findPlaces returns where everything in valid TOML stands.
func findPlaces(data []byte) *places {
	f := &finder{places: places{map[string]spot{}, map[string]spot{}}, elements: map[string]int{}}
	f.parser.Reset(data)
	table := ""
	for f.parser.NextExpression() {
		e := f.parser.Expression()
		switch e.Kind {
		case unstable.Table:
			table = f.key(e.Key(), "")
		case unstable.ArrayTable:
			table = f.key(e.Key(), "")
			n := f.elements[table]
			f.elements[table]++
			table = fmt.Sprintf("%s[%d]", table, n)
		case unstable.KeyValue:
			f.value(e.Value(), f.key(e.Key(), table))
		}
	}
	return &f.places
}

type finder struct {
	parser   unstable.Parser
	places   places
	elements map[string]int // of arrays of tables
}

// key notes the parts of a dotted key below path and returns the path of the
// last one. A part that was there before keeps its place.
func (f *finder) key(parts unstable.Iterator, path string) string {
	for parts.Next() {
		if n := f.elements[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1) // the newest element of an array of tables
		}
		part := parts.Node()
		path = fields.Join(path, string(part.Data))
		if _, known := f.places.keys[path]; !known {
			f.places.keys[path] = f.spot(part)
		}
	}
	return path
}

func (f *finder) value(v *unstable.Node, path string) {
	if v.Raw.Length > 0 {
		f.places.values[path] = f.spot(v)
	}
	switch v.Kind {
	case unstable.Array:
		items := v.Children()
		for i := 0; items.Next(); i++ {
			at := fmt.Sprintf("%s[%d]", path, i)
			f.value(items.Node(), at)
		}
	case unstable.InlineTable:
		entries := v.Children()
		for entries.Next() {
			e := entries.Node()
			f.value(e.Value(), f.key(e.Key(), path))
		}
	}
}

func (f *finder) spot(n *unstable.Node) spot {
	start := f.parser.Shape(n.Raw).Start
	line := f.parser.Data()[start.Offset-(start.Column-1) : start.Offset]
	return spot{start.Line, utf8.RuneCount(line) + 1}
}
