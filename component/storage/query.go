package storage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// MayMatch reports whether a file of this id can be one that is chosen.
func (q *FileQuery) MayMatch(id int64) bool {
	return id > q.After && (len(q.IDs) == 0 || slices.Contains(q.IDs, id))
}

// Matcher returns what tells whether a file is chosen; it does not count for
// Limit. Errors: ErrInvalid if Query can't be read.
func (q *FileQuery) Matcher() (func(*File) bool, error) {
	query := func(*File) bool { return true }
	if q.Query != "" {
		var err error
		if query, err = parseQuery(q.Query); err != nil {
			return nil, err
		}
	}
	return func(f *File) bool {
		for _, t := range q.Tags {
			if !slices.Contains(f.Tags, t) {
				return false
			}
		}
		for _, t := range q.NotTags {
			if slices.Contains(f.Tags, t) {
				return false
			}
		}
		if !q.ChangedSince.IsZero() && !f.Created.After(q.ChangedSince) {
			return false
		}
		return q.MayMatch(f.ID) && query(f)
	}, nil
}

// A predicate of files.
type predicate = func(*File) bool

// parseQuery reads the part of Elasticsearch's query strings that is used to
// choose files: FIELD:VALUE, FIELD:(A OR B), FIELD:[FROM TO UNTIL], AND, OR, NOT,
// "+", "-" and parentheses, with the fields tags, name, id, created, isPublic and
// sizeBytes. Values may have quotes, and "*" and "?" without them. Terms side by
// side are joined by OR, as they are there.
func parseQuery(text string) (predicate, error) {
	p := &queryParser{text: text}
	match, err := predicate(nil), error(nil)
	if len(text) > queryLength {
		text, err = text[:40]+"...", fmt.Errorf("it is longer than %s", caisson.Bytes(queryLength))
	} else {
		match, err = p.or("")
	}
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("%q is not expected", p.peek())
	}
	if err != nil {
		return nil, &caisson.Error{Item: fmt.Sprintf("file query %q", text), Kind: caisson.ErrInvalid, Err: err}
	}
	return match, nil
}

type queryParser struct {
	text  string
	at    int
	depth int
}

const (
	queryLength = 64 << 10 // bytes
	queryDepth  = 50       // of parentheses
)

// token returns the next token and where it ends: a mark of its own, a quoted
// text with its quotes, or a word.
func (p *queryParser) token() (string, int) {
	at := p.at
	for at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[at]) >= 0 {
		at++
	}
	if at == len(p.text) {
		return "", at
	}
	const marks = "():[]{}" // also inside of words
	if strings.IndexByte(marks+"+-!", p.text[at]) >= 0 {
		return p.text[at : at+1], at + 1
	}
	end := at
	if p.text[at] == '"' {
		for end++; end < len(p.text) && p.text[end] != '"'; end++ {
			if p.text[end] == '\\' {
				end++
			}
		}
		end = min(end+1, len(p.text))
		return p.text[at:end], end
	}
	for end < len(p.text) && strings.IndexByte(" \t\r\n\"()[]{}:", p.text[end]) < 0 {
		if p.text[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(p.text))
	return p.text[at:end], end
}

func (p *queryParser) peek() string { t, _ := p.token(); return t }

func (p *queryParser) next() string {
	t, end := p.token()
	p.at = end
	return t
}

func (p *queryParser) take(tokens ...string) bool {
	if !slices.Contains(tokens, p.peek()) {
		return false
	}
	p.next()
	return true
}

// or reads terms joined by OR, or by nothing. Field is that of values without
// one.
func (p *queryParser) or(field string) (predicate, error) {
	if p.depth++; p.depth > queryDepth {
		return nil, fmt.Errorf("parentheses deeper than %d", queryDepth)
	}
	defer func() { p.depth-- }()
	match, err := p.and(field)
	for err == nil {
		if t := p.peek(); t == "" || t == ")" {
			break
		}
		p.take("OR", "||")
		var other predicate
		if other, err = p.and(field); err == nil {
			one := match
			match = func(f *File) bool { return one(f) || other(f) }
		}
	}
	return match, err
}

func (p *queryParser) and(field string) (predicate, error) {
	match, err := p.term(field)
	for err == nil && (p.take("AND", "&&") || slices.Contains([]string{"NOT", "-", "!", "+"}, p.peek())) {
		var other predicate
		if other, err = p.term(field); err == nil {
			one := match
			match = func(f *File) bool { return one(f) && other(f) }
		}
	}
	return match, err
}

func (p *queryParser) term(field string) (predicate, error) {
	switch {
	case p.take("NOT", "-", "!"):
		match, err := p.term(field)
		return func(f *File) bool { return !match(f) }, err
	case p.take("+"):
		return p.term(field)
	case p.take("("):
		match, err := p.or(field)
		if err == nil && !p.take(")") {
			err = fmt.Errorf("a ) is missing")
		}
		return match, err
	case field != "" && slices.Contains([]string{"[", "{"}, p.peek()):
		return p.between(field)
	}
	word := p.next()
	if word == "" || strings.IndexByte("():[]{}", word[0]) >= 0 {
		return nil, fmt.Errorf("a value is missing at %q", word)
	}
	if field == "" {
		if !p.take(":") {
			return nil, fmt.Errorf("%q has no field, such as name:%s", word, word)
		}
		if _, ok := queryFields[word]; !ok {
			return nil, fmt.Errorf("field %q is not known; the fields are tags, name, id, created, isPublic and sizeBytes", word)
		}
		return p.term(word)
	}
	return equals(field, word)
}

// between reads [FROM TO UNTIL]; with { and } the ends are not part of it.
func (p *queryParser) between(field string) (predicate, error) {
	open := p.next()
	from := p.bound()
	if p.next() != "TO" {
		return nil, fmt.Errorf("a range is [FROM TO UNTIL]")
	}
	until := p.bound()
	end := p.next()
	if end != "]" && end != "}" {
		return nil, fmt.Errorf("a range ends with ]")
	}
	above, err := compare(field, from, 1, open == "[")
	if err != nil {
		return nil, err
	}
	below, err := compare(field, until, -1, end == "]")
	return func(f *File) bool { return above(f) && below(f) }, err
}

// bound reads a bound of a range, which may have ":" inside, as times do.
func (p *queryParser) bound() string {
	word := p.next()
	for word != "" && word[0] != '"' && p.at < len(p.text) && strings.IndexByte(":+", p.text[p.at]) >= 0 {
		word += p.next() + p.next()
	}
	return word
}

// queryFields are the fields, each with its values.
var queryFields = map[string]func(*File) []string{
	"tags":      func(f *File) []string { return f.Tags },
	"name":      func(f *File) []string { return []string{f.Name} },
	"id":        func(f *File) []string { return []string{strconv.FormatInt(f.ID, 10)} },
	"created":   func(f *File) []string { return []string{f.Created.UTC().Format(time.RFC3339Nano)} },
	"isPublic":  func(f *File) []string { return []string{strconv.FormatBool(f.Public)} },
	"sizeBytes": func(f *File) []string { return []string{strconv.FormatInt(f.Size, 10)} },
}

func equals(field, word string) (predicate, error) {
	text, quoted := unquote(word)
	if field == "created" {
		day, err := moment(text)
		if err != nil {
			return nil, err
		}
		return func(f *File) bool {
			return f.Created.Equal(day) || len(text) == len(time.DateOnly) && sameDay(f.Created, day)
		}, nil
	}
	values := queryFields[field]
	return func(f *File) bool {
		return slices.ContainsFunc(values(f), func(v string) bool {
			return v == text || !quoted && like(word, v)
		})
	}, nil
}

func sameDay(a, day time.Time) bool { return !a.Before(day) && a.Before(day.AddDate(0, 0, 1)) }

// unquote returns what a word stands for.
func unquote(word string) (text string, quoted bool) {
	if len(word) >= 2 && word[0] == '"' && word[len(word)-1] == '"' {
		word, quoted = word[1:len(word)-1], true
	}
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+1 < len(word) {
			i++
		}
		b.WriteByte(word[i])
	}
	return b.String(), quoted
}

// like matches "*" and "?" in time that is bounded by the product of lengths.
func like(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// compare is true of files that are above (sign 1) or below (-1) a bound.
func compare(field, word string, sign int, including bool) (predicate, error) {
	text, _ := unquote(word)
	if text == "*" {
		return func(*File) bool { return true }, nil
	}
	fits := func(order int) bool { return order*sign > 0 || order == 0 && including }
	switch field {
	case "created":
		at, err := moment(text)
		return func(f *File) bool { return fits(f.Created.Compare(at)) }, err
	case "id", "sizeBytes":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a number", field, text)
		}
		return func(f *File) bool {
			v := f.ID
			if field == "sizeBytes" {
				v = f.Size
			}
			return fits(cmp(v, n))
		}, nil
	}
	return func(f *File) bool {
		return slices.ContainsFunc(queryFields[field](f), func(v string) bool { return fits(strings.Compare(v, text)) })
	}, nil
}

func cmp(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func moment(text string) (time.Time, error) {
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05-0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("created: %q is not a time, such as 2026-01-31T12:00:00", text)
}
