//go:build unix

package run

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/caissonrun/caisson/keeper/redact"
)

// hide takes the run's secrets out of a text for people: also those of a state,
// which were not known when the run was accepted. A text is cut afterwards, as
// half of a secret is not found.
func (a *attempt) hide(text string) string { return a.hider()(text) }

// hider is hide for many texts, with the secrets that are known by now.
func (a *attempt) hider() func(text string) string {
	var values [][]byte
	for _, v := range a.values {
		if n := len(bytes.TrimRight(v, "\r\n")); n >= redact.MinSecret && len(v) <= redact.MaxSecret {
			values = append(values, v)
		}
	}
	set, err := redact.Compile(values)
	if err != nil || set.Empty() {
		return func(text string) string { return text }
	}
	return func(text string) string {
		var out strings.Builder
		w := set.NewWriter(func(b []byte) error {
			out.Write(b)
			return nil
		})
		// Neither fails: what they are given is in memory, and so is where it goes.
		_ = w.Write([]byte(text))
		_ = w.Close()
		return out.String()
	}
}

// hideJSON is hide for a value of JSON, which stays one.
func (a *attempt) hideJSON(value json.RawMessage) json.RawMessage {
	hidden := json.RawMessage(a.hide(string(value)))
	if !json.Valid(hidden) { // it was a number, or a part of one
		hidden, _ = json.Marshal(redact.Marker) // never an error
	}
	return hidden
}
