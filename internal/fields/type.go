package fields

import (
	"regexp"
	"sync"
)

// A Form is the shape of what a Type describes.
type Form int

// The forms.
const (
	Text   Form = iota // a string; its result is a string
	Whole              // a whole number; its result is a json.Number
	Real               // a number; its result is a json.Number
	Flag               // true or false; its result is a bool
	Series             // a list of Elem; its result is an []any
	Table              // a mapping of free keys to Elem; its result is a map[string]any
	Object             // a mapping of Fields; its result is a map[string]any
	Open               // a mapping that somebody else checks; its result is a json.RawMessage
	Choice             // the first of Choices that fits the kind of the value
	Any                // whatever JSON can say; its result is a json.RawMessage
)

// Numbers says which numbers a Text takes without quotes.
type Numbers int

// The numbers that a Text takes. They become text as they were written.
const (
	NoNumbers    Numbers = iota
	WholeNumbers         // without a fraction
	AnyNumbers
)

// A Type says what a value may be. It is not changed once it is in use.
type Type struct {
	Form Form
	// Name gives the type an entry of its own in the schema's $defs, where it is
	// used in several places.
	Name string
	// Want says in words what would be right: "a duration such as 30s or 10m".
	Want string
	// Null says that no value at all is right, too; its result is nil.
	Null bool

	// Of Text.

	Enum    []string
	Pattern *Pattern
	Deny    *Pattern // a text that matches is wrong
	// Check refuses what patterns can't express, and may say better than they
	// what is wrong. Its message stands alone.
	Check     func(string) error
	Numbers   Numbers
	Bools     bool // true and false are taken as text
	NotEmpty  bool
	MaxLength int  // in characters; 0: any
	Lines     bool // may have line breaks and tabs, but no NUL
	Raw       bool // may have any character
	Private   bool // the value is never repeated in a message

	// Of Whole, Real, and the numbers of a Text. Max 0: none.

	Min, Max float64

	// Of Series and Table.

	Elem   *Type
	Key    *Type // of a Table's keys; nil: any text
	Least  int   // number of entries
	Unique bool  // the texts of a Series may not repeat

	// Of Object.

	Fields []Field
	Rules  []Rule
	Extra  bool // keys that Fields does not name are taken, and are not in the result

	// Of Choice: types of different kinds of values.

	Choices []*Type

	// Convert changes a valid result. It may be nil.
	Convert func(any) any
}

// A Field is a key of an Object.
type Field struct {
	Name     string
	Doc      string // full sentences of Markdown
	Type     *Type
	Required bool
	Default  string   // in words, for the documentation; empty: none
	Fill     string   // as JSON: what the reader of the result takes where the key is not there
	Examples []any    // valid values
	Also     []string // other names that people may try
	Secret   bool     // the value is never shown
}

// A Rule is about several fields of an Object.
type Rule struct {
	// Schema is what a JSON Schema can say of the rule; nil: nothing.
	Schema map[string]any
	// Check reports what is wrong. It sees only values that are valid by
	// themselves.
	Check func(o *Found)
}

// A Pattern is a regular expression in the common subset of Go and ECMAScript.
type Pattern struct {
	source string
	once   sync.Once
	re     *regexp.Regexp
}

// Match returns the pattern of texts that match source from end to end. It is
// compiled when it is first used.
func Match(source string) *Pattern { return Contain("^(?:" + source + ")$") }

// Contain returns the pattern of texts that have a match of source in them.
func Contain(source string) *Pattern { return &Pattern{source: source} }

// Matches reports whether s is a text of the pattern.
func (p *Pattern) Matches(s string) bool {
	p.once.Do(func() { p.re = regexp.MustCompile(p.source) })
	return p.re.MatchString(s)
}

// field returns the field of an Object by name, or nil.
func (t *Type) field(name string) *Field {
	for i := range t.Fields {
		if t.Fields[i].Name == name {
			return &t.Fields[i]
		}
	}
	return nil
}

// takes reports whether a value of kind k can be right for t.
func (t *Type) takes(k Kind) bool {
	if k == Null && t.Null {
		return true
	}
	switch t.Form {
	case Any:
		return true
	case Text:
		return k == String || k == Bool && t.Bools ||
			k == Int && t.Numbers != NoNumbers || k == Float && t.Numbers == AnyNumbers
	case Whole, Real:
		return k == Int || k == Float
	case Flag:
		return k == Bool
	case Series:
		return k == List
	case Table, Object, Open:
		return k == Map
	}
	for _, c := range t.Choices {
		if c.takes(k) {
			return true
		}
	}
	return false
}

// want returns in words what t takes.
func (t *Type) want() string {
	if t.Want != "" {
		return t.Want
	}
	switch t.Form {
	case Text:
		if len(t.Enum) > 0 {
			return oneOf(t.Enum)
		}
		return String.String()
	case Whole:
		return "a whole number"
	case Real:
		return Float.String()
	case Flag:
		return Bool.String()
	case Series:
		return List.String()
	case Table, Object, Open:
		return Map.String()
	case Any:
		return "any value"
	}
	words := ""
	for i, c := range t.Choices {
		if i > 0 {
			words += " or "
		}
		words += c.want()
	}
	return words
}
