package component

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// A Kind is what a Value is.
type Kind int

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Object
)

// A Value is a piece of JSON whose keys keep their order and whose numbers stay
// as they were written. A nil *Value is null everywhere.
type Value struct {
	Kind    Kind
	Text    string   // of a string; a number as written; "true" or "false"
	Items   []*Value // of a List
	Members []Member // of an Object; no key twice

	line, column int // in the file that it was read from; 0: not known
}

// A Member is a key of an object with its value.
type Member struct {
	Key   string
	Value *Value

	line, column int // of the key
}

// NewObject returns an empty object.
func NewObject() *Value { return &Value{Kind: Object} }

// NewString returns a string.
func NewString(s string) *Value { return &Value{Kind: String, Text: s} }

// NewBool returns true or false.
func NewBool(b bool) *Value { return &Value{Kind: Bool, Text: strconv.FormatBool(b)} }

// NewList returns a list.
func NewList(items ...*Value) *Value { return &Value{Kind: List, Items: items} }

// ValueOf returns v as a Value, by way of its JSON.
func ValueOf(v any) (*Value, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := &Value{}
	return out, out.UnmarshalJSON(data)
}

// Get returns what lies below v by the names of keys, or nil.
func (v *Value) Get(path ...string) *Value {
	for _, key := range path {
		if v == nil || v.Kind != Object {
			return nil
		}
		var next *Value
		for i := range v.Members {
			if v.Members[i].Key == key {
				next = v.Members[i].Value
			}
		}
		v = next
	}
	return v
}

// Set puts a member into an object: at its place if the key is there, else at
// the end.
func (v *Value) Set(key string, value *Value) {
	for i := range v.Members {
		if v.Members[i].Key == key {
			v.Members[i].Value = value
			return
		}
	}
	v.Members = append(v.Members, Member{Key: key, Value: value})
}

// Remove takes a member out of an object.
func (v *Value) Remove(key string) {
	if v == nil {
		return
	}
	for i := range v.Members {
		if v.Members[i].Key == key {
			v.Members = append(v.Members[:i:i], v.Members[i+1:]...)
			return
		}
	}
}

// Clone returns a copy that shares nothing with v.
func (v *Value) Clone() *Value {
	if v == nil {
		return nil
	}
	out := *v
	out.Items, out.Members = nil, nil
	for _, item := range v.Items {
		out.Items = append(out.Items, item.Clone())
	}
	for _, m := range v.Members {
		m.Value = m.Value.Clone()
		out.Members = append(out.Members, m)
	}
	return &out
}

// IsScalar reports whether v is a string, a number, true or false.
func (v *Value) IsScalar() bool {
	return v != nil && (v.Kind == String || v.Kind == Number || v.Kind == Bool)
}

// IsEmpty reports whether v is nothing, null, or a list or object of nothing.
func (v *Value) IsEmpty() bool {
	if v == nil {
		return true
	}
	switch v.Kind {
	case Null:
		return true
	case List:
		return len(v.Items) == 0
	case Object:
		return len(v.Members) == 0
	}
	return false
}

// MarshalJSON implements json.Marshaler. The text has no spaces; "/" and
// non-ASCII characters stay as they are.
func (v *Value) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	v.compact(&out)
	return out.Bytes(), nil
}

func (v *Value) compact(out *bytes.Buffer) {
	if v == nil {
		out.WriteString("null")
		return
	}
	switch v.Kind {
	case Null:
		out.WriteString("null")
	case Bool, Number:
		out.WriteString(v.Text)
	case String:
		writeString(out, v.Text)
	case List:
		out.WriteByte('[')
		for i, item := range v.Items {
			if i > 0 {
				out.WriteByte(',')
			}
			item.compact(out)
		}
		out.WriteByte(']')
	case Object:
		out.WriteByte('{')
		for i, m := range v.Members {
			if i > 0 {
				out.WriteByte(',')
			}
			writeString(out, m.Key)
			out.WriteByte(':')
			m.Value.compact(out)
		}
		out.WriteByte('}')
	}
}

// writeString writes s as JSON without the escapes that are for HTML.
func writeString(out *bytes.Buffer, s string) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.Encode(s)               // can't fail: a buffer, a string
	out.Truncate(out.Len() - 1) // the line break
}

// UnmarshalJSON implements json.Unmarshaler. Of a key that stands there twice
// the last value counts, at the place of the first.
func (v *Value) UnmarshalJSON(data []byte) error {
	// This bounds the depth, too.
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	out, err := decode(dec)
	if err == nil {
		*v = *out
	}
	return err
}

func decode(dec *json.Decoder) (*Value, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	v := &Value{}
	switch t := token.(type) {
	case bool:
		return NewBool(t), nil
	case json.Number:
		v.Kind, v.Text = Number, t.String()
	case string:
		v.Kind, v.Text = String, t
	case json.Delim:
		if v.Kind = Object; t == '[' {
			v.Kind = List
			err = v.decodeItems(dec)
		} else {
			err = v.decodeMembers(dec)
		}
		if err == nil {
			_, err = dec.Token() // the closing bracket
		}
	}
	return v, err
}

func (v *Value) decodeItems(dec *json.Decoder) error {
	for dec.More() {
		item, err := decode(dec)
		if err != nil {
			return err
		}
		v.Items = append(v.Items, item)
	}
	return nil
}

func (v *Value) decodeMembers(dec *json.Decoder) error {
	places := map[string]int{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		value, err := decode(dec)
		if err != nil {
			return err
		}
		key, _ := token.(string) // nothing else is there in valid JSON
		if i, twice := places[key]; twice {
			v.Members[i].Value = value
			continue
		}
		places[key] = len(v.Members)
		v.Members = append(v.Members, Member{Key: key, Value: value})
	}
	return nil
}

// Encoding says how Encode writes JSON.
type Encoding struct {
	// EmptyLists writes empty objects below the top two levels as [], as
	// components written against PHP's runner may expect.
	EmptyLists bool
}

// Encode returns v as the reference writes JSON: indented by four spaces, with
// "/" and what is not ASCII escaped, without a line break at the end.
func (v *Value) Encode(e Encoding) []byte {
	var out bytes.Buffer
	v.pretty(&out, e, 0)
	return out.Bytes()
}

func (v *Value) pretty(out *bytes.Buffer, e Encoding, depth int) {
	switch {
	case v == nil || v.Kind == Null:
		out.WriteString("null")
	case v.Kind == String:
		writeEscaped(out, v.Text)
	case v.Kind == List && len(v.Items) == 0, v.Kind == Object && len(v.Members) == 0 && e.EmptyLists && depth > 1:
		out.WriteString("[]")
	case v.Kind == Object && len(v.Members) == 0:
		out.WriteString("{}")
	case v.Kind == List:
		out.WriteByte('[')
		for i, item := range v.Items {
			startLine(out, i, depth+1)
			item.pretty(out, e, depth+1)
		}
		endLines(out, depth, ']')
	case v.Kind == Object:
		out.WriteByte('{')
		for i, m := range v.Members {
			startLine(out, i, depth+1)
			writeEscaped(out, m.Key)
			out.WriteString(": ")
			m.Value.pretty(out, e, depth+1)
		}
		endLines(out, depth, '}')
	default:
		out.WriteString(v.Text)
	}
}

func startLine(out *bytes.Buffer, i, depth int) {
	if i > 0 {
		out.WriteByte(',')
	}
	out.WriteByte('\n')
	out.WriteString(strings.Repeat("    ", depth))
}

func endLines(out *bytes.Buffer, depth int, bracket byte) {
	out.WriteByte('\n')
	out.WriteString(strings.Repeat("    ", depth))
	out.WriteByte(bracket)
}

// writeEscaped writes s as a JSON string of ASCII alone.
func writeEscaped(out *bytes.Buffer, s string) {
	out.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\' || c == '/':
			out.WriteByte('\\')
			out.WriteByte(byte(c))
		case c == '\b':
			out.WriteString(`\b`)
		case c == '\f':
			out.WriteString(`\f`)
		case c == '\n':
			out.WriteString(`\n`)
		case c == '\r':
			out.WriteString(`\r`)
		case c == '\t':
			out.WriteString(`\t`)
		case c >= ' ' && c < 0x80:
			out.WriteByte(byte(c))
		case c >= 0x10000:
			c -= 0x10000
			writeUnit(out, 0xd800+c>>10)
			writeUnit(out, 0xdc00+c&0x3ff)
		default:
			writeUnit(out, c)
		}
	}
	out.WriteByte('"')
}

// writeUnit writes the escape of a UTF-16 code unit.
func writeUnit(out *bytes.Buffer, c rune) {
	const digits = "0123456789abcdef"
	out.WriteString(`\u`)
	for shift := 12; shift >= 0; shift -= 4 {
		out.WriteByte(digits[c>>shift&0xf])
	}
}
