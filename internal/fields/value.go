package fields

import (
	"fmt"
)

// A Kind is what a value looks like in its source.
type Kind int

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	List
	Map
	Broken // could not be read, which has been reported
)

var kindNames = [...]string{
	"empty", "true or false", "a number", "a number", "text", "a list", "a mapping", "broken",
}

// String returns the kind in words, such as "a list".
func (k Kind) String() string { return kindNames[k] }

// A Value is a piece of input with its place in the source. Numbers are kept
// as they were written.
type Value struct {
	Kind   Kind
	Text   string // of a scalar, as written but without quotes and escapes
	Items  []*Value
	Keys   []Entry // of a Map, in the order of the source; may repeat
	Line   int     // from 1; 0 where not known
	Column int     // from 1, in characters; 0 where not known
}

// An Entry is a key of a mapping with its value.
type Entry struct {
	Key    string
	Value  *Value
	Line   int // of the key
	Column int
}

// quote returns outside text for a message: quoted, and cut if it is long.
func quote(s string) string {
	const most = 60
	if len(s) > 5*most {
		s = s[:5*most] // enough for as many characters, and cheap
	}
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%q...", string(r[:most]))
	}
	return fmt.Sprintf("%q", s)
}
