package component

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
	"github.com/caissonrun/caisson/internal/source"
)

// A Format is the syntax of a component's files.
type Format string

// The formats.
const (
	JSON Format = "json"
	YAML Format = "yaml"
)

// Extension returns the end of the names of files of the format: ".json" or
// ".yml".
func (f Format) Extension() string {
	if f == YAML {
		return ".yml"
	}
	return ".json"
}

// maxMade is the most values that a file of a component may have: a component
// that is up to no good is not to use up the memory of the runner.
const maxMade = 400_000

// maxProblems is how many problems of a file are told.
const maxProblems = 100

// MaxConfiguration is the most bytes that a configuration or definition may
// have.
const MaxConfiguration = 4 << 20

// ParseValue reads a file that a person wrote, in JSON or YAML. Errors:
// Problems.
func ParseValue(name string, data []byte) (*Value, error) {
	return parseSource(name, data, source.Options{MaxSize: MaxConfiguration})
}

// parseMade reads a file that a component wrote.
func parseMade(name string, data []byte, f Format, most int) (*Value, error) {
	o := source.Options{MaxSize: most, MaxValues: maxMade, AnyJSON: true}
	if len(data) <= most && f != YAML && !json.Valid(data) {
		// Never YAML in place of JSON.
		_, found := source.Read(name+".json", data, o)
		for i := range found {
			found[i].File = name
		}
		if len(found) > 0 {
			return nil, Problems(found)
		}
		return nil, problem(name, "", "not valid JSON")
	}
	return parseSource(name, data, o)
}

func parseSource(name string, data []byte, o source.Options) (*Value, error) {
	read, found := source.Read(name, data, o)
	if len(found) > 0 || read == nil {
		return nil, Problems(found)
	}
	b := builder{file: name}
	v := b.value(read, "")
	if len(b.problems) > 0 {
		return nil, b.problems
	}
	return v, nil
}

// builder makes a Value of what was read.
type builder struct {
	file     string
	problems Problems
}

func (b *builder) value(f *fields.Value, path string) *Value {
	v := &Value{Text: f.Text, line: f.Line, column: f.Column}
	switch f.Kind {
	case fields.Bool:
		v.Kind = Bool
	case fields.Int, fields.Float:
		v.Kind = Number
		if !json.Valid([]byte(f.Text)) {
			number, ok := fields.Number(f)
			if !ok {
				// What it is is not repeated: it may be a secret.
				b.add(f, path, "is a number that JSON does not have; write it in quotes if it is text")
			}
			v.Text = number
		}
	case fields.String:
		v.Kind = String
	case fields.List:
		v.Kind = List
		for i, item := range f.Items {
			v.Items = append(v.Items, b.value(item, fmt.Sprintf("%s[%d]", path, i)))
		}
	case fields.Map:
		v.Kind = Object
		seen := make(map[string]bool, len(f.Keys))
		for _, e := range f.Keys {
			at := fields.Join(path, e.Key)
			if seen[e.Key] {
				b.add(&fields.Value{Line: e.Line, Column: e.Column}, at, "the key stands there twice")
				continue
			}
			seen[e.Key] = true
			v.Members = append(v.Members, Member{Key: e.Key, Value: b.value(e.Value, at), line: e.Line, column: e.Column})
		}
	default:
		v.Kind, v.Text = Null, ""
	}
	return v
}

func (b *builder) add(f *fields.Value, path, message string) {
	if len(b.problems) >= maxProblems {
		return
	}
	b.problems = append(b.problems, Problem{File: b.file, Line: f.Line, Column: f.Column, Path: path, Message: message})
}

// check reports what is wrong with v as a t, and returns it in the shape of t
// with defaults.
func check(file string, v *Value, t *fields.Type) (*Value, error) {
	v = shape(v, t).Clone()
	if _, found := fields.Read(file, toFields(v), t); len(found) > 0 {
		return nil, Problems(found)
	}
	fill(v, t)
	return v, nil
}

// decodeInto puts a checked value into a structure.
func decodeInto(v *Value, t *fields.Type, into any) error {
	plain, found := fields.Read("", toFields(shape(v, t)), t)
	if len(found) > 0 {
		return &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrInternal, Err: Problems(found)}
	}
	data, err := json.Marshal(withoutNull(plain))
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return &caisson.Error{Op: caisson.OpValidate, Kind: caisson.ErrInternal, Err: err}
	}
	return nil
}

// withoutNull takes out of mappings what has no value, so that zero values
// stand for it.
func withoutNull(plain any) any {
	switch p := plain.(type) {
	case map[string]any:
		for k, v := range p {
			if v == nil {
				delete(p, k)
			} else {
				p[k] = withoutNull(v)
			}
		}
	case []any:
		for i := range p {
			if p[i] == nil {
				p[i] = ""
			}
			p[i] = withoutNull(p[i])
		}
	}
	return plain
}

// ParseTableManifest reads the manifest of a table that a component wrote. Name
// is what errors call it. Errors: Problems, of kind ErrInvalid.
func ParseTableManifest(name string, data []byte, f Format) (*TableManifest, error) {
	v, err := parseMade(name, data, f, MaxManifest)
	if err != nil {
		return nil, err
	}
	m := &TableManifest{}
	if err := parseInto(name, v, tableManifestType(), m); err != nil {
		return nil, err
	}
	m.tidy(v)
	return m, nil
}

// parseInto checks v and puts it into a structure.
func parseInto(name string, v *Value, t *fields.Type, into any) error {
	v, err := check(name, v, t)
	if err != nil {
		return err
	}
	return decodeInto(v, t, into)
}

// tidy mends what the reference mends, and puts in what the structure can't
// read by itself. V is what was written.
func (m *TableManifest) tidy(v *Value) {
	keys := make([]string, 0, len(m.PrimaryKey))
	for _, key := range m.PrimaryKey {
		trimmed := strings.TrimSpace(key)
		switch {
		case trimmed == "":
			m.Warnings = append(m.Warnings, "an empty name in primary_key was left out")
		case !slices.Contains(keys, trimmed):
			keys = append(keys, trimmed)
		}
	}
	m.PrimaryKey = keys
	if m.Delimiter == "" && isNull(v.Get("delimiter")) {
		m.Delimiter = ","
	}
	if m.Enclosure == "" && isNull(v.Get("enclosure")) {
		m.Enclosure = `"`
	}
	if m.DeleteWhereOperator == "" {
		m.DeleteWhereOperator = "eq"
	}
	for i := range m.DeleteWhere {
		for j := range m.DeleteWhere[i].Filters {
			if f := &m.DeleteWhere[i].Filters[j]; f.Operator == "" {
				f.Operator = "eq"
			}
		}
	}
	m.scalars(v)
}

// scalars puts the values of notes as they were written: the tables have them
// as text.
func (m *TableManifest) scalars(v *Value) {
	m.Metadata = notes(v.Get("metadata"))
	m.ColumnMetadata = map[string][]Metadata{}
	if columns := v.Get("column_metadata"); columns != nil {
		for _, c := range columns.Members {
			m.ColumnMetadata[c.Key] = notes(c.Value)
		}
	}
	m.TableMetadata = raw(v.Get("table_metadata"))
	schema := v.Get("schema")
	for i := range m.Schema {
		// A list that was written as a mapping has the same order.
		m.Schema[i].Metadata = raw(element(schema, i).Get("metadata"))
	}
}

// element returns the i-th value of a list, or of a mapping that stands for
// one.
func element(v *Value, i int) *Value {
	if v.Kind == List {
		return v.Items[i]
	}
	return v.Members[i].Value
}

func notes(v *Value) []Metadata {
	out := []Metadata{}
	if v == nil {
		return out
	}
	for i := range max(len(v.Items), len(v.Members)) {
		note := element(v, i)
		value, _ := note.Get("value").MarshalJSON() // never an error
		out = append(out, Metadata{Key: scalarText(note.Get("key")), Value: value})
	}
	return out
}

func raw(v *Value) map[string]json.RawMessage {
	if v.IsEmpty() || v.Kind != Object {
		return nil
	}
	out := make(map[string]json.RawMessage, len(v.Members))
	for _, m := range v.Members {
		out[m.Key], _ = m.Value.MarshalJSON() // never an error
	}
	return out
}

func isNull(v *Value) bool { return v == nil || v.Kind == Null }

// scalarText returns the text of a single value, and "" for others.
func scalarText(v *Value) string {
	if v.IsScalar() {
		return v.Text
	}
	return ""
}

// ParseFileManifest reads the manifest of a file that a component wrote. Errors:
// Problems.
func ParseFileManifest(name string, data []byte, f Format) (*FileManifest, error) {
	v, err := parseMade(name, data, f, MaxManifest)
	if err != nil {
		return nil, err
	}
	m := &FileManifest{}
	if err := parseInto(name, v, fileManifestType(), m); err != nil {
		return nil, err
	}
	return m, nil
}

// ParseState reads a stored state. Errors: Problems.
func ParseState(name string, data []byte) (*State, error) {
	v, err := parseMade(name, data, JSON, 16*MaxState)
	if err != nil {
		return nil, err
	}
	v, err = check(name, v, stateType())
	if err != nil {
		return nil, err
	}
	s := &State{Component: v.Get("component"), DataApp: v.Get("data_app")}
	var stored struct {
		Storage struct {
			Input InputState `json:"input"`
		} `json:"storage"`
	}
	if err := decodeInto(v, stateType(), &stored); err != nil {
		return nil, err
	}
	s.Input = stored.Storage.Input
	if s.Component.IsEmpty() {
		s.Component = NewObject()
	}
	return s, nil
}

// Marshal returns the state as it is stored.
func (s *State) Marshal() ([]byte, error) {
	out := NewObject()
	component := s.Component
	if component.IsEmpty() {
		component = NewObject()
	}
	out.Set("component", component)
	input, err := ValueOf(s.Input)
	if err != nil {
		return nil, err
	}
	storage := NewObject()
	storage.Set("input", input)
	out.Set("storage", storage)
	if s.DataApp != nil {
		out.Set("data_app", s.DataApp)
	}
	return out.MarshalJSON()
}

// ParseComponentState reads out/state.json: any object or list. Errors: the
// application's Problems.
func ParseComponentState(name string, data []byte, f Format) (*Value, error) {
	v, err := parseMade(name, data, f, MaxState)
	if err != nil {
		return nil, Application(err)
	}
	if v.Kind != Object && v.Kind != List {
		return nil, Application(problem(name, "", "is not a mapping or a list"))
	}
	if v.IsEmpty() {
		v = NewObject()
	}
	return v, nil
}

// ParseUsage reads out/usage.json. Errors: the application's Problems.
func ParseUsage(name string, data []byte) ([]Usage, error) {
	v, err := parseMade(name, data, JSON, MaxUsage)
	if err != nil {
		return nil, Application(err)
	}
	if v, err = check(name, v, usageType()); err != nil {
		return nil, Application(err)
	}
	usage := make([]Usage, len(v.Items))
	for i, item := range v.Items {
		usage[i].Metric, _ = item.Get("metric").MarshalJSON() // never an error
		usage[i].Value, _ = item.Get("value").MarshalJSON()
	}
	return usage, nil
}

// ParseResultDoc reads out/result.json. Errors: Problems, which a run only warns
// of.
func ParseResultDoc(name string, data []byte) (*ResultDoc, error) {
	v, err := parseMade(name, data, JSON, MaxResult)
	if err != nil {
		return nil, err
	}
	if v, err = check(name, v, resultType()); err != nil {
		return nil, err
	}
	return &ResultDoc{Variables: raw(v.Get("variables"))}, nil
}
