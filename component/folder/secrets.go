//go:build unix

package folder

import (
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// hiddenText stands in archives where a # value was.
const hiddenText = "[hidden]"

// CheckSecrets says whether a configuration has a secret of the image parameters
// under one of its own # keys: it would be shown to whoever can read what the
// component does with its parameters. Errors: ErrInvalid.
func CheckSecrets(config, imageParameters *component.Value) error {
	secrets := map[string]bool{}
	for _, secret := range component.Secrets(imageParameters) {
		secrets[secret] = true
	}
	var used []string
	eachSecret(config, "", func(path string, v *component.Value) {
		if secrets[v.Text] && !strings.HasPrefix(path, "image_parameters.") {
			used = append(used, strconv.Quote(path))
		}
	})
	if len(used) == 0 {
		return nil
	}
	return invalid(caisson.OpValidate, "configuration",
		"a secret of the component itself is used in %s: only the component may have it", strings.Join(used, ", "))
}

// eachSecret calls f for each scalar right under a # key.
func eachSecret(v *component.Value, path string, f func(path string, v *component.Value)) {
	if v == nil {
		return
	}
	for i, item := range v.Items {
		eachSecret(item, join(path, strconv.Itoa(i)), f)
	}
	for _, m := range v.Members {
		at := join(path, m.Key)
		if strings.HasPrefix(m.Key, "#") && m.Value.IsScalar() {
			f(at, m.Value)
			continue
		}
		eachSecret(m.Value, at, f)
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// hide returns v with nothing of what is under # keys.
func hide(v *component.Value) *component.Value {
	out := v.Clone()
	blank(out)
	return out
}

func blank(v *component.Value) {
	if v == nil {
		return
	}
	for _, item := range v.Items {
		blank(item)
	}
	for i := range v.Members {
		m := &v.Members[i]
		if strings.HasPrefix(m.Key, "#") && m.Value != nil && m.Value.Kind != component.Null {
			m.Value = component.NewString(hiddenText)
			continue
		}
		blank(m.Value)
	}
}
