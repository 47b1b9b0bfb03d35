package fields

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxProblems is the most problems that Read reports.
const MaxProblems = 100

// Read checks v against t and returns it in plain form, ready for
// encoding/json, together with everything that is wrong with it in the order
// of the source. The result is only of use where nothing is wrong. File is
// what the problems name as their file.
func Read(file string, v *Value, t *Type) (any, []Problem) {
	r := &reader{file: file}
	out, _ := r.read(v, t, "")
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if more := len(r.problems) - MaxProblems; more > 0 {
		r.problems = append(r.problems[:MaxProblems], Problem{
			File:    file,
			Message: fmt.Sprintf("and %d more problems", more),
		})
	}
	return out, r.problems
}

type reader struct {
	file     string
	problems []Problem
}

func (r *reader) add(line, column int, path, message string) {
	r.problems = append(r.problems, Problem{r.file, line, column, path, message})
}

func (r *reader) at(v *Value, path, format string, args ...any) {
	r.add(v.Line, v.Column, path, fmt.Sprintf(format, args...))
}

// read returns the plain form of v and whether it is valid.
func (r *reader) read(v *Value, t *Type, path string) (any, bool) {
	if v.Kind == Broken {
		return nil, false
	}
	if !t.takes(v.Kind) {
		r.at(v, path, "%s", wrongKind(v, t))
		return nil, false
	}
	if v.Kind == Null && t.Null {
		return nil, true
	}
	before := len(r.problems)
	var out any
	switch t.Form {
	case Text:
		out = r.text(v, t, path)
	case Whole, Real:
		out = r.number(v, t, path)
	case Flag:
		out = v.Text == "true"
	case Series:
		out = r.series(v, t, path)
	case Table:
		out = r.table(v, t, path)
	case Object:
		out = r.object(v, t, path)
	case Open, Any:
		out = r.open(v, path)
	case Choice:
		for _, c := range t.Choices {
			if c.takes(v.Kind) {
				out, _ = r.read(v, c, path)
				break
			}
		}
	}
	if len(r.problems) > before {
		return nil, false
	}
	if t.Convert != nil {
		out = t.Convert(out)
	}
	return out, true
}

// wrongKind says that v can't be a t at all.
func wrongKind(v *Value, t *Type) string {
	want := t.want()
	switch {
	case v.Kind == Null:
		return fmt.Sprintf("has no value; want %s, or remove the key", want)
	case t.Form == Text && v.isScalar() && !t.Private && t.checkText(v.Text, String) == "":
		return fmt.Sprintf("is %s, not text; write it in quotes: %s", v.Kind, quote(v.Text))
	case (t.Form == Whole || t.Form == Real) && v.Kind == String && plainNumber.Matches(v.Text):
		return fmt.Sprintf("is text, not a number; write it without quotes: %.60s", v.Text)
	case v.Kind == String && !t.Private:
		return fmt.Sprintf("is the text %s; want %s", quote(v.Text), want)
	}
	return fmt.Sprintf("is %s; want %s", v.Kind, want)
}

// isScalar reports whether v is a number, true or false.
func (v *Value) isScalar() bool { return v.Kind == Int || v.Kind == Float || v.Kind == Bool }

func (r *reader) text(v *Value, t *Type, path string) any {
	if problem := t.checkText(v.Text, v.Kind); problem != "" {
		r.at(v, path, "%s", problem)
	}
	return v.Text
}

// checkText returns what is wrong with a text, or "".
func (t *Type) checkText(s string, k Kind) string {
	shown := quote(s)
	if t.Private {
		shown = "the value"
	}
	switch {
	case k == String && t.NotEmpty && s == "":
		return "is empty; want " + t.want()
	case t.MaxLength > 0 && utf8.RuneCountInString(s) > t.MaxLength:
		return fmt.Sprintf("is longer than %d characters", t.MaxLength)
	case !t.Raw && strings.ContainsRune(s, 0):
		return "has a NUL character"
	case !t.Raw && !t.Lines && strings.ContainsFunc(s, isControl):
		return shown + " has a control character"
	case len(t.Enum) > 0 && !slices.Contains(t.Enum, s):
		message := fmt.Sprintf("%s is not known; want %s", shown, oneOf(t.Enum))
		if near := Suggest(s, t.Enum); near != "" {
			message = fmt.Sprintf("%s is not known; did you mean %q? known are %s", shown, near, words(t.Enum, " and "))
		}
		return message
	}
	if t.Check != nil {
		if err := t.Check(s); err != nil {
			return err.Error()
		}
	}
	if t.Pattern != nil && !t.Pattern.Matches(s) || t.Deny != nil && t.Deny.Matches(s) {
		return fmt.Sprintf("%s is not valid; want %s", shown, t.want())
	}
	return ""
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

var plainNumber = Match(`-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`)

// jsonNumber returns the number text as JSON, exactly where it is a whole
// number, and "" where it is none.
func jsonNumber(text string, k Kind) json.Number {
	if plainNumber.Matches(text) {
		return json.Number(text)
	}
	digits := strings.TrimLeft(text, "+-")
	if k == Int && len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return "" // octal to some, decimal to others
	}
	if n, ok := new(big.Int).SetString(text, 0); ok && len(text) < 100 {
		return json.Number(n.String())
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return ""
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
}

func (r *reader) number(v *Value, t *Type, path string) any {
	n := jsonNumber(v.Text, v.Kind)
	f, err := n.Float64()
	whole := err == nil && f == math.Trunc(f)
	switch {
	case err != nil || t.Form == Whole && (!whole || math.Abs(f) > 1<<53):
		r.at(v, path, "%s is not valid; want %s", quote(v.Text), t.want())
	case f < t.Min || t.Max > 0 && f > t.Max:
		r.at(v, path, "%s is out of range; want %s", v.Text, t.wantRange())
	case t.Form == Whole:
		return json.Number(strconv.FormatInt(int64(f), 10))
	}
	return n
}

// wantRange returns in words which numbers are right.
func (t *Type) wantRange() string {
	if t.Want != "" {
		return t.Want
	}
	if t.Max > 0 {
		return fmt.Sprintf("%v to %v", t.Min, t.Max)
	}
	return fmt.Sprintf("%v or more", t.Min)
}

func (r *reader) series(v *Value, t *Type, path string) any {
	if len(v.Items) < t.Least {
		r.at(v, path, "is empty; want %s, or remove the key", t.want())
	}
	out, seen := make([]any, 0, len(v.Items)), map[string]bool{}
	for i, item := range v.Items {
		at := fmt.Sprintf("%s[%d]", path, i)
		plain, ok := r.read(item, t.Elem, at)
		if !ok {
			continue
		}
		text, _ := plain.(string)
		if n, isNumber := plain.(json.Number); isNumber {
			text = string(n)
		}
		if t.Unique && seen[text] {
			r.at(item, at, "%s stands in the list twice", quote(text))
		}
		seen[text] = true
		out = append(out, plain)
	}
	return out
}

func (r *reader) table(v *Value, t *Type, path string) any {
	if len(v.Keys) < t.Least {
		r.at(v, path, "is empty; want %s, or remove the key", t.want())
	}
	out := make(map[string]any, len(v.Keys))
	r.entries(v, path, func(e *Entry, at string) {
		if t.Key != nil {
			if problem := t.Key.checkText(e.Key, String); problem != "" {
				r.add(e.Line, e.Column, at, "key: "+problem)
			}
		}
		if plain, ok := r.read(e.Value, t.Elem, at); ok {
			out[e.Key] = plain
		}
	})
	return out
}

// entries calls f for the entries of a mapping whose keys stand there once and
// reports the others.
func (r *reader) entries(v *Value, path string, f func(e *Entry, at string)) {
	first := make(map[string]*Entry, len(v.Keys))
	for i := range v.Keys {
		e := &v.Keys[i]
		at := Join(path, e.Key)
		if earlier := first[e.Key]; earlier != nil {
			message := "the key stands there twice"
			if earlier.Line > 0 {
				message += fmt.Sprintf("; the first is on line %d", earlier.Line)
			}
			r.add(e.Line, e.Column, at, message)
			continue
		}
		first[e.Key] = e
		f(e, at)
	}
}

func (r *reader) object(v *Value, t *Type, path string) any {
	found := &Found{r: r, path: path, value: v, entries: map[string]*Entry{}, Valid: map[string]any{}}
	r.entries(v, path, func(e *Entry, at string) {
		field := t.field(e.Key)
		if field == nil && t.Extra {
			return
		}
		if field == nil {
			r.add(e.Line, e.Column, at, t.unknown(e.Key))
			return
		}
		found.entries[e.Key] = e
		if plain, ok := r.read(e.Value, field.Type, at); ok {
			found.Valid[e.Key] = plain
		}
	})
	for i := range t.Fields {
		if f := &t.Fields[i]; f.Required && found.entries[f.Name] == nil {
			r.at(v, path, "the key %q is missing; want %s", f.Name, f.Type.want())
		}
	}
	for _, rule := range t.Rules {
		if rule.Check != nil {
			rule.Check(found)
		}
	}
	return found.Valid
}

// unknown says that t has no such key and which one was meant.
func (t *Type) unknown(key string) string {
	names := make([]string, 0, len(t.Fields))
	for i := range t.Fields {
		f := &t.Fields[i]
		if slices.Contains(f.Also, strings.ToLower(key)) {
			return fmt.Sprintf("unknown key %s; did you mean %q?", quote(key), f.Name)
		}
		names = append(names, f.Name)
	}
	near := Suggest(key, names)
	if near == "" {
		near = t.below(key)
	}
	switch {
	case near != "":
		return fmt.Sprintf("unknown key %s; did you mean %q?", quote(key), near)
	case len(names) <= 12:
		return fmt.Sprintf("unknown key %s; known are %s", quote(key), words(names, " and "))
	}
	return fmt.Sprintf("unknown key %s", quote(key))
}

// below returns the path of a key that belongs one level deeper, or "".
func (t *Type) below(key string) string {
	for i := range t.Fields {
		inner := t.Fields[i].Type
		if inner.Form != Object {
			continue
		}
		for j := range inner.Fields {
			if f := &inner.Fields[j]; f.Name == key || slices.Contains(f.Also, key) {
				return t.Fields[i].Name + "." + f.Name
			}
		}
	}
	return ""
}

func (r *reader) open(v *Value, path string) any {
	plain := r.plain(v, path)
	data, err := json.Marshal(plain)
	if err != nil {
		r.at(v, path, "%v", err)
	}
	return json.RawMessage(data)
}

// plain returns v as encoding/json would have read it.
func (r *reader) plain(v *Value, path string) any {
	switch v.Kind {
	case Null, Broken:
		return nil
	case Bool:
		return v.Text == "true"
	case Int, Float:
		n := jsonNumber(v.Text, v.Kind)
		if n == "" {
			r.at(v, path, "%s is not a number that JSON has; write it in quotes if it is text", quote(v.Text))
			return nil
		}
		return n
	case String:
		return v.Text
	case List:
		out := make([]any, len(v.Items))
		for i, item := range v.Items {
			out[i] = r.plain(item, fmt.Sprintf("%s[%d]", path, i))
		}
		return out
	}
	out := make(map[string]any, len(v.Keys))
	r.entries(v, path, func(e *Entry, at string) { out[e.Key] = r.plain(e.Value, at) })
	return out
}

var plainKey = Match(`[A-Za-z0-9_-]{1,60}`)

// Join returns the path of a key below path.
func Join(path, key string) string {
	switch {
	case !plainKey.Matches(key):
		return path + "[" + quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// Number returns the number of v as JSON, and whether JSON has it.
func Number(v *Value) (string, bool) {
	n := jsonNumber(v.Text, v.Kind)
	return string(n), n != ""
}
