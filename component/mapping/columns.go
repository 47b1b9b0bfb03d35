package mapping

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// letters are what decomposing does not make ASCII of.
var letters = strings.NewReplacer(
	"đ", "d", "Đ", "D", "ð", "d", "Ð", "D", "ħ", "h", "Ħ", "H", "ı", "i", "ĸ", "k", "ł", "l", "Ł", "L",
	"ŋ", "n", "Ŋ", "N", "ø", "o", "Ø", "O", "ŧ", "t", "Ŧ", "T", "ß", "ss", "ẞ", "SS", "æ", "ae", "Æ", "AE",
	"œ", "oe", "Œ", "OE", "þ", "th", "Þ", "TH",
)

// reserved are names of system columns of databases.
var reserved = map[string]bool{
	"oid": true, "tableoid": true, "xmin": true, "cmin": true, "xmax": true, "cmax": true, "ctid": true,
}

// webalize makes a name that every storage can give to a column: letters lose
// their accents, what is no letter or digit becomes "_".
func webalize(name string) string {
	var out strings.Builder
	gap := false
	for _, c := range norm.NFD.String(letters.Replace(name)) {
		switch {
		case c == '_' || c < 0x80 && (unicode.IsLetter(c) || unicode.IsDigit(c)):
			out.WriteRune(c)
			gap = false
		case unicode.Is(unicode.Mn, c): // an accent
		case !gap:
			out.WriteByte('_')
			gap = true
		}
	}
	name = strings.Trim(out.String(), "_")
	if reserved[strings.ToLower(name)] {
		name += "_"
	}
	return name
}

// restricted reports whether a column has a name that storages keep for
// themselves.
func restricted(name string) bool { return strings.EqualFold(name, "_timestamp") }

// names makes column names of what a component calls its columns. It warns once
// of each that it changes.
type names struct {
	source string // whose columns they are
	warn   func(format string, args ...any)
	warned map[string]bool
}

func newNames(source string, warn func(string, ...any)) *names {
	return &names{source: source, warn: warn, warned: map[string]bool{}}
}

func (n *names) one(name string) string {
	made := webalize(name)
	if made != name && !n.warned[name] {
		n.warned[name] = true
		n.warn("%q: column name %q was webalized to %q", n.source, name, made)
	}
	return made
}

func (n *names) all(list []string) []string {
	out := make([]string, 0, len(list))
	for _, name := range list {
		out = append(out, n.one(name))
	}
	return out
}

// maxName is how many bytes the name of a column may have. Databases have less.
const maxName = 255

// checkColumns refuses columns that no table can have. Said are the component's
// names of them.
func checkColumns(columns, said []string) error {
	seen := map[string]int{}
	for i, c := range columns {
		if c == "" {
			if said[i] == "" {
				return fmt.Errorf("column %d has no name", i+1)
			}
			return fmt.Errorf("column %d: nothing is left of the name %.200q when all but letters, digits and _ is taken out", i+1, said[i])
		}
		if len(c) > maxName {
			return fmt.Errorf("column %d has a name of %d bytes; at most %d are possible", i+1, len(c), maxName)
		}
		if k, twice := seen[strings.ToLower(c)]; twice {
			return fmt.Errorf("columns %d and %d (%q and %q) have the same name", k+1, i+1, said[k], said[i])
		}
		seen[strings.ToLower(c)] = i
	}
	return nil
}

// A spelling is how names are written, whatever their case.
type spelling map[string]string

func spellingOf(names []string) spelling {
	s := make(spelling, len(names))
	for _, n := range names {
		s[strings.ToLower(n)] = n
	}
	return s
}

// of returns name as it is written, and whether there is such a name.
func (s spelling) of(name string) (string, bool) {
	as, ok := s[strings.ToLower(name)]
	return as, ok
}

// all rewrites names as they are written; others stay.
func (s spelling) all(names []string) {
	for i, n := range names {
		if as, ok := s.of(n); ok {
			names[i] = as
		}
	}
}

// missing returns those of want that are not in s.
func (s spelling) missing(want []string) []string {
	var out []string
	for _, n := range want {
		if _, ok := s.of(n); !ok {
			out = append(out, n)
		}
	}
	return out
}

// missing returns those of want that are not in have, whatever their case.
func missing(want, have []string) []string { return spellingOf(have).missing(want) }

func sameSet(a, b []string) bool { return len(missing(a, b)) == 0 && len(missing(b, a)) == 0 }

// index returns where each key is in a list: the last place.
func index[T any](list []T, key func(T) string) map[string]int {
	out := make(map[string]int, len(list))
	for i, item := range list {
		out[key(item)] = i
	}
	return out
}
