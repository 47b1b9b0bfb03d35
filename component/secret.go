package component

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// An Unsealer opens sealed values.
type Unsealer interface {
	// Unseal returns the plain text of the value at path. Errors never repeat
	// the value.
	Unseal(path, sealed string) (string, error)
}

// A Sealer seals values.
type Sealer interface {
	// Seal returns plain as text that the same scope's Unsealer opens. A value
	// that is sealed already stays.
	Seal(plain string) (string, error)
}

// placeholder matches a value that is nothing but the name of a variable.
var placeholder = regexp.MustCompile(`^\s*\{\{\s*[^{}]+\s*\}\}\s*$`)

// Unseal returns v with every single value under a key that begins with "#"
// opened, and all of those values that are not empty. A value that is empty,
// or only names a variable, stays. U may be nil where there is nothing to open.
//
// Errors: all values that can't be opened, by their paths, ErrInvalid.
func Unseal(u Unsealer, v *Value) (plain *Value, secrets []string, err error) {
	return unseal(u, v, "", nil)
}

// unseal leaves the values at the paths of done as they are: they are open.
func unseal(u Unsealer, v *Value, root string, done map[string]bool) (plain *Value, secrets []string, err error) {
	plain = v.Clone()
	var wrong Problems
	walkSecrets(plain, root, func(path string, value *Value) {
		if value.Text == "" || placeholder.MatchString(value.Text) {
			return
		}
		if !done[path] || IsSealed(value.Text) || isLegacy(value.Text) {
			text, problem := openValue(u, path, value)
			if problem != "" {
				wrong = append(wrong, Problem{Path: path, Message: problem})
				return
			}
			*value = Value{Kind: String, Text: text}
		}
		if value.Text != "" {
			secrets = append(secrets, value.Text)
		}
	})
	if len(wrong) > 0 {
		return nil, nil, wrong
	}
	return plain, secrets, nil
}

// openValue opens one value, or says in words why not.
func openValue(u Unsealer, path string, value *Value) (text, problem string) {
	switch {
	case isLegacy(value.Text):
		return "", "is encrypted by Keboola's " + legacyName(value.Text) +
			", which only Keboola can decrypt; write the plain value and run \"caisson component encrypt\""
	case !IsSealed(value.Text):
		return "", "is not encrypted; run \"caisson component encrypt\""
	case u == nil:
		return "", "is encrypted, and there is no key to decrypt it"
	}
	text, err := u.Unseal(path, value.Text)
	if err != nil {
		return "", cause(err)
	}
	return text, ""
}

// cause returns an error's words without the operation and item that its
// problem says already.
func cause(err error) string {
	if e, ok := err.(*caisson.Error); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// Seal returns v with every single value under a key that begins with "#"
// sealed, but those that are sealed already, are empty, or only name a variable.
//
// Errors: those of s; Problems for values of Keboola's ciphers.
func Seal(s Sealer, v *Value) (*Value, error) {
	out := v.Clone()
	var wrong Problems
	var failed error
	walkSecrets(out, "", func(path string, value *Value) {
		switch {
		case value.Text == "" || IsSealed(value.Text) || placeholder.MatchString(value.Text) || failed != nil:
			return
		case isLegacy(value.Text):
			_, problem := openValue(nil, path, value)
			wrong = append(wrong, Problem{Path: path, Message: problem})
			return
		}
		var text string
		if text, failed = s.Seal(value.Text); failed == nil {
			*value = Value{Kind: String, Text: text}
		}
	})
	if len(wrong) > 0 {
		return nil, wrong
	}
	return out, failed
}

// Secrets returns every single value under a key that begins with "#" that is
// not empty.
func Secrets(v *Value) []string {
	var out []string
	walkSecrets(v, "", func(_ string, value *Value) {
		if value.Text != "" {
			out = append(out, value.Text)
		}
	})
	return out
}

// walkSecrets calls f for every single value under a key that begins with "#".
// Values inside of an object or list under such a key are not meant, unless a
// key of their own says so.
func walkSecrets(v *Value, path string, f func(path string, value *Value)) {
	if v == nil {
		return
	}
	for i, item := range v.Items {
		walkSecrets(item, fmt.Sprintf("%s[%d]", path, i), f)
	}
	for _, m := range v.Members {
		at := joinKey(path, m.Key)
		if strings.HasPrefix(m.Key, "#") && m.Value.IsScalar() {
			f(at, m.Value)
			continue
		}
		walkSecrets(m.Value, at, f)
	}
}

// joinKey is fields.Join, but for keys that begin with "#", which are written
// as the reference writes them.
func joinKey(path, key string) string {
	name, secret := strings.CutPrefix(key, "#")
	if joined := fields.Join("", name); !secret || joined != name {
		return fields.Join(path, key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// SealedPrefix begins every sealed value.
const SealedPrefix = "caisson:v1:"

// IsSealed reports whether text looks like a sealed value.
func IsSealed(text string) bool { return strings.HasPrefix(text, SealedPrefix) }

// isLegacy reports whether text is a cipher of Keboola's.
func isLegacy(text string) bool { return legacyName(text) != "" }

var legacy = regexp.MustCompile(`^KBC::[A-Za-z]+`)

// legacyName returns the name of the cipher of Keboola's that text is, or "".
func legacyName(text string) string {
	name := legacy.FindString(text)
	rest := strings.TrimPrefix(text, name)
	if name == "" || !strings.HasPrefix(rest, "::") && !strings.HasPrefix(rest, "==") {
		return ""
	}
	return name
}
