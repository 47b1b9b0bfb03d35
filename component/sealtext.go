package component

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
)

// SealText seals the values under keys that begin with "#" in the text of a
// JSON or YAML file, as Seal does, and leaves the rest of the text as it is. It
// returns how many values it has sealed.
//
// Errors: Problems; ErrUnsupported where the text of a value can't be replaced
// by itself, such as one that is used by an alias; those of s.
func SealText(s Sealer, name string, data []byte) (out []byte, count int, err error) {
	v, err := ParseValue(name, data)
	if err != nil {
		return nil, 0, err
	}
	sealed, err := Seal(s, v)
	if err != nil {
		return nil, 0, inFile(err, name)
	}
	edits := changes(v, sealed)
	if len(edits) == 0 {
		return data, 0, nil
	}
	text, ok := edit(string(data), edits)
	if ok {
		// What is written must be read as what was meant.
		again, err := ParseValue(name, []byte(text))
		ok = err == nil && same(again, sealed)
	}
	if !ok {
		return nil, 0, &caisson.Error{
			Op: caisson.OpValidate, Item: name, Kind: caisson.ErrUnsupported,
			Err: errors.New("a \"#\" value can't be replaced where it stands; write each in quotes on one line, without anchors and aliases"),
		}
	}
	return []byte(text), len(edits), nil
}

func same(a, b *Value) bool {
	x, _ := a.MarshalJSON() // never an error
	y, _ := b.MarshalJSON()
	return bytes.Equal(x, y)
}

// A change is a value that gets another text.
type change struct {
	old *Value
	new string
}

// changes returns which values under "#" keys differ, from the last in the text
// to the first.
func changes(from, to *Value) []change {
	var news []string
	walkSecrets(to, "", func(_ string, value *Value) { news = append(news, value.Text) })
	var out []change
	i := 0
	walkSecrets(from, "", func(_ string, value *Value) {
		if news[i] != value.Text {
			out = append(out, change{value, news[i]})
		}
		i++
	})
	slices.SortFunc(out, func(a, b change) int {
		if a.old.line != b.old.line {
			return b.old.line - a.old.line
		}
		return b.old.column - a.old.column
	})
	return out
}

// edit puts the new texts where the old values stand.
func edit(text string, changes []change) (string, bool) {
	mark := "\uFEFF"
	text, marked := strings.CutPrefix(text, mark)
	if !marked {
		mark = ""
	}
	for _, c := range changes {
		start, ok := offset(text, c.old.line, c.old.column)
		if !ok {
			return "", false
		}
		length := tokenLength(text[start:], c.old.Text)
		if length == 0 {
			return "", false
		}
		quoted, _ := json.Marshal(c.new) // never an error
		text = text[:start] + string(quoted) + text[start+length:]
	}
	return mark + text, true
}

// offset returns where a place begins.
func offset(text string, line, column int) (int, bool) {
	at := 0
	for ; line > 1; line-- {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return 0, false
		}
		at += next + 1
	}
	for ; column > 1; column-- {
		if at >= len(text) {
			return 0, false
		}
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return at, at < len(text)
}

// tokenLength returns how long the value is that text begins with, or 0.
func tokenLength(text, value string) int {
	switch text[0] {
	case '"':
		for i := 1; i < len(text); i++ {
			switch text[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
		return 0
	case '\'':
		for i := 1; i < len(text); i++ {
			switch {
			case text[i] != '\'':
			case strings.HasPrefix(text[i:], "''"):
				i++
			default:
				return i + 1
			}
		}
		return 0
	}
	if value != "" && strings.HasPrefix(text, value) {
		return len(value)
	}
	return 0
}
