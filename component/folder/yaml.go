//go:build unix

package folder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/component"
)

// encodeYAML writes a value in block style, indented by four spaces. Strings are
// in double quotes always: what is a word and what is a number, a date or true
// differs between readers of YAML 1.1 and 1.2.
func encodeYAML(v *component.Value) []byte {
	var out bytes.Buffer
	if isBlock(v) {
		yamlBlock(&out, v, 0)
		return out.Bytes()
	}
	yamlInline(&out, v)
	out.WriteByte('\n')
	return out.Bytes()
}

// isBlock says whether a value takes lines of its own.
func isBlock(v *component.Value) bool { return v != nil && len(v.Items)+len(v.Members) > 0 }

// yamlBlock writes the lines of a list or an object that is not empty.
func yamlBlock(out *bytes.Buffer, v *component.Value, depth int) {
	indent := strings.Repeat("    ", depth)
	for _, item := range v.Items {
		out.WriteString(indent + "-")
		yamlValue(out, item, depth)
	}
	for _, m := range v.Members {
		out.WriteString(indent)
		out.WriteString(yamlKey(m.Key))
		out.WriteByte(':')
		yamlValue(out, m.Value, depth)
	}
}

func yamlValue(out *bytes.Buffer, v *component.Value, depth int) {
	if isBlock(v) {
		out.WriteByte('\n')
		yamlBlock(out, v, depth+1)
		return
	}
	out.WriteByte(' ')
	yamlInline(out, v)
	out.WriteByte('\n')
}

func yamlInline(out *bytes.Buffer, v *component.Value) {
	switch {
	case v == nil || v.Kind == component.Null:
		out.WriteString("null")
	case v.Kind == component.String:
		out.WriteString(yamlString(v.Text))
	case v.Kind == component.List:
		out.WriteString("[]")
	case v.Kind == component.Object:
		out.WriteString("{}")
	case v.Kind == component.Number:
		out.WriteString(yamlNumber(v.Text))
	default:
		out.WriteString(v.Text)
	}
}

// yamlString writes a string as in JSON, which YAML reads alike. Characters
// beyond the first plane stay as they are, because YAML does not pair their
// halves; those that YAML does not permit, or takes for a line break, are
// escaped.
func yamlString(s string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // can't fail: a buffer, a string
	var escaped strings.Builder
	for _, r := range strings.TrimSuffix(out.String(), "\n") {
		if r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0xfffe || r == 0xffff {
			fmt.Fprintf(&escaped, `\u%04x`, r)
			continue
		}
		escaped.WriteRune(r)
	}
	return escaped.String()
}

// yamlWords are what some reader of YAML takes for something else than a string.
var yamlWords = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

func yamlKey(key string) string {
	plain := key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") == "" && !slices.Contains(yamlWords, key)
	if plain {
		return key
	}
	return yamlString(key)
}

// yamlNumber writes a number so that readers of YAML 1.1 take it for one too:
// with an exponent it must have a point and a sign.
func yamlNumber(text string) string {
	digits, exponent, ok := strings.Cut(strings.ToLower(text), "e")
	if !ok {
		return text
	}
	if !strings.Contains(digits, ".") {
		digits += ".0"
	}
	if exponent[0] != '+' && exponent[0] != '-' {
		exponent = "+" + exponent
	}
	return digits + "e" + exponent
}
