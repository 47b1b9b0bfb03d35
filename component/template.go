package component

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cbroglie/mustache"

	"github.com/caissonrun/caisson"
)

// noPartials answers that there are no partials: a template never opens files.
type noPartials struct{}

func (noPartials) Get(name string) (string, error) {
	return "", fmt.Errorf("{{> %s}} is not supported in a configuration", clip(name))
}

// fillTemplate returns the JSON text of v with Mustache's placeholders filled
// in, parsed again.
func fillTemplate(file string, v *Value, values map[string]string) (*Value, error) {
	text, err := v.MarshalJSON()
	if err != nil {
		return nil, err
	}
	tmpl, err := mustache.ParseStringPartials(string(text), noPartials{})
	if err != nil {
		return nil, problem(file, "", "is not a valid template: "+err.Error())
	}
	tmpl.Escape(escapeJSON)
	missing := map[string]bool{}
	if err := findMissing(tmpl.Tags(), values, missing, false); err != nil {
		return nil, problem(file, "", err.Error())
	}
	if len(missing) > 0 {
		return nil, problem(file, "", "there are no values for the placeholders "+quoted(slices.Sorted(maps.Keys(missing))))
	}
	out := &limited{left: 4 * MaxConfiguration}
	if err := tmpl.FRender(out, values); err != nil {
		if errors.Is(err, errTooLong) {
			err = errTooLong
		}
		return nil, problem(file, "", "the template can't be filled in: "+err.Error())
	}
	filled := &Value{}
	dec := filled.UnmarshalJSON(out.buf.Bytes())
	if dec != nil {
		return nil, problem(file, "", "is no longer JSON once variables are filled in; write {{name}}, not {{{name}}} or {{&name}}")
	}
	return filled, nil
}

// findMissing adds to missing the names that tags use and values has not. What
// opens a section may be missing: the section is left out. Inside of a section
// "." is its value.
func findMissing(tags []mustache.Tag, values map[string]string, missing map[string]bool, inside bool) error {
	for _, tag := range tags {
		_, known := values[tag.Name()]
		switch tag.Type() {
		case mustache.Variable:
			if !known && (tag.Name() != "." || !inside) {
				missing[tag.Name()] = true
			}
		case mustache.Section, mustache.InvertedSection:
			if tag.Type() == mustache.Section && !known {
				continue
			}
			if err := findMissing(tag.Tags(), values, missing, true); err != nil {
				return err
			}
		default:
			return fmt.Errorf("{{> %s}} is not supported in a configuration", clip(tag.Name()))
		}
	}
	return nil
}

// escapeJSON returns s as it stands between the quotes of a JSON string.
func escapeJSON(s string) string {
	var out bytes.Buffer
	writeString(&out, s)
	return string(out.Bytes()[1 : out.Len()-1])
}

var errTooLong = errors.New("it becomes too long")

// limited is a buffer with an end.
type limited struct {
	buf  bytes.Buffer
	left int
}

var _ io.Writer = (*limited)(nil)

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooLong
	}
	return l.buf.Write(p)
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(clip(n))
	}
	return strings.Join(out, ", ")
}

var vaultName = regexp.MustCompile(`\{\{\s*vault\.([A-Za-z0-9_.-]+)\s*\}\}`)

// fillVault returns v with {{ vault.NAME }} filled in, in keys too.
func fillVault(file string, v *Value, vault map[string]string) (*Value, error) {
	text, err := v.MarshalJSON()
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	filled := vaultName.ReplaceAllStringFunc(string(text), func(tag string) string {
		name := vaultName.FindStringSubmatch(tag)[1]
		value, ok := vault[name]
		if !ok {
			missing["vault."+name] = true
		}
		return escapeJSON(value)
	})
	if len(missing) > 0 {
		return nil, problem(file, "", "there are no values for the placeholders "+quoted(slices.Sorted(maps.Keys(missing))))
	}
	out := &Value{}
	if err := out.UnmarshalJSON([]byte(filled)); err != nil {
		return nil, &caisson.Error{Op: caisson.OpValidate, Item: file, Kind: caisson.ErrInternal, Err: err}
	}
	return out, nil
}

// shareCode returns v with each element of a list of single values that names a
// part of the shared code replaced by that part's texts.
func shareCode(v *Value, code map[string][]*Value) *Value {
	if v == nil {
		return nil
	}
	out := *v
	out.Items, out.Members = nil, nil
	for _, m := range v.Members {
		out.Members = append(out.Members, Member{Key: m.Key, Value: shareCode(m.Value, code)})
	}
	scalars := !slices.ContainsFunc(v.Items, func(item *Value) bool { return !item.IsScalar() })
	for _, item := range v.Items {
		texts, found := named(item, code)
		switch {
		case !scalars:
			out.Items = append(out.Items, shareCode(item, code))
		case found:
			out.Items = append(out.Items, texts...)
		default:
			out.Items = append(out.Items, item)
		}
	}
	return &out
}

var codeName = regexp.MustCompile(`\{\{\s*([^{}\s]+)\s*\}\}`)

// named returns the texts of the parts that an element names, and whether it
// names any.
func named(item *Value, code map[string][]*Value) (texts []*Value, found bool) {
	if !item.IsScalar() {
		return nil, false
	}
	for _, match := range codeName.FindAllStringSubmatch(item.Text, -1) {
		part, known := code[match[1]]
		texts, found = append(texts, part...), found || known
	}
	return texts, found
}
