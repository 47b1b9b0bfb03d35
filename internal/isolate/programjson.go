package isolate

import (
	"encoding/json"
	"unicode/utf8"
)

// A program's arguments, variables and folder are bytes, and JSON has none: it
// would put U+FFFD in the place of each that is not UTF-8. Where there are
// such, all go as base64.

// plainProgram is a Program with JSON's own idea of it.
type plainProgram Program

// rawProgram is a Program that is not UTF-8.
type rawProgram struct {
	plainProgram
	Args [][]byte `json:"raw_args"`
	Env  [][]byte `json:"raw_env"`
	Dir  []byte   `json:"raw_dir"`
}

// MarshalJSON implements json.Marshaler.
func (p Program) MarshalJSON() ([]byte, error) {
	if p.isText() {
		return json.Marshal(plainProgram(p))
	}
	raw := rawProgram{plainProgram: plainProgram(p), Args: toBytes(p.Args), Env: toBytes(p.Env), Dir: []byte(p.Dir)}
	raw.plainProgram.Args, raw.plainProgram.Env, raw.plainProgram.Dir = nil, nil, ""
	return json.Marshal(&raw)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Program) UnmarshalJSON(data []byte) error {
	var raw rawProgram
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	*p = Program(raw.plainProgram)
	if raw.Args != nil {
		p.Args, p.Env, p.Dir = toText(raw.Args), toText(raw.Env), string(raw.Dir)
	}
	return nil
}

// isText reports whether everything is UTF-8.
func (p *Program) isText() bool {
	ok := utf8.ValidString(p.Dir)
	for _, list := range [][]string{p.Args, p.Env} {
		for _, s := range list {
			ok = ok && utf8.ValidString(s)
		}
	}
	return ok
}

func toBytes(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func toText(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}
