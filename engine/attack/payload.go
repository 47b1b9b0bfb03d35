package attack

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// PayloadProgram and PayloadSchema are an operator's program, and what tasks may
// ask it for, that the attacks on an engine for options alone are tried with.
const (
	PayloadProgram = `#!/bin/sh
read -r payload
case $payload in
*'"flood"'*) head -c 20000000 /dev/zero | tr '\0' x >&2; exit 1 ;;
*'"fork"'*)
	n=${payload##*:}
	setsid sleep "1${n%%\}*}" >/dev/null 2>&1 </dev/null &
	;;
*) echo "$payload" ;;
esac
`
	PayloadSchema = `{
	"type": "object", "required": ["do"], "additionalProperties": false,
	"properties": {"do": {"enum": ["say", "flood", "fork"]}, "n": {"type": "integer"}}
}`
)

// Payloads returns the attacks of tasks that are nothing but options: on engines
// with Features.OptionsOnly, whose program is PayloadProgram.
func Payloads() []Attack {
	needs := []string{"options"}
	const harmless = "the program prints, or sleeps, and nothing else"
	return []Attack{
		{
			ID: "B21", Name: "payload/schema", Run: payloadSchema, Needs: needs, Bound: harmless,
			Tries: "options that the operator's schema does not permit, by their keys, types, depth and number",
		},
		{
			ID: "B21", Name: "payload/duplicates", Run: payloadDuplicates, Needs: needs, Bound: harmless,
			Tries: "a key that stands twice, so that what was checked is not what the program takes",
		},
		{
			ID: "B21", Name: "payload/own-program", Run: payloadProgram, Needs: needs, Bound: harmless,
			Tries: "have a say in how the program runs: a command, variables, a user, mounts, secrets, a network",
		},
		{
			ID: "D31", Name: "payload/forks", Run: payloadForks, Needs: needs, Bound: "what is left behind sleeps",
			Tries: "have the program leave a process in a session of its own",
		},
		{
			ID: "D33", Name: "payload/message", Run: payloadMessage, Needs: needs, Bound: "20 MB are printed",
			Tries: "have the program end with a message of 20 MB in one line",
		},
	}
}

func payloadSchema(t *Trial) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	for _, options := range []string{
		`{}`, `{"do":"other"}`, `{"do":["say"]}`, `{"do":"say","n":"1"}`, `{"do":"say","key":1}`, `["say"]`, `"say"`, `null`, `1`,
		`{"do":"say","n":` + deep + `}`, `{"do":"say"} {"do":"other"}`, `{"do":"say"`, `{"DO":"say"}`, "{\"do\":\"say\",\"d\x00o\":1}",
	} {
		spec := t.Spec()
		spec.Options = json.RawMessage(options)
		if b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrUnsupported); b != nil {
			t.Errorf("the program was run with %.60q", options)
		}
	}
}

func payloadDuplicates(t *Trial) {
	for _, options := range []string{`{"do":"flood","do":"say"}`, `{"do":"other","do":"say"}`, `{"do":"say","d\u006f":"say"}`} {
		spec := t.Spec()
		spec.Options = json.RawMessage(options)
		b := t.startUnless(spec, caisson.ErrInvalid, caisson.ErrUnsupported)
		if b == nil {
			continue
		}
		b.wait()
		if out := b.stdout(); strings.Count(out, `"do"`)+strings.Count(out, `"d\u006f"`) != 1 || !strings.Contains(out, "say") {
			t.Errorf("of %s the program was given %.100q", options, out)
		}
	}
}

func payloadProgram(t *Trial) {
	control := t.Spec()
	control.Options = json.RawMessage(`{"do":"say"}`)
	t.start(control).success()
	for name, change := range map[string]func(){
		"args":    func() { control.Args = []string{"/bin/sh", "-c", "id"} },
		"run":     func() { control.Run = "id" },
		"image":   func() { control.Image = "busybox" },
		"user":    func() { control.User = "0" },
		"workdir": func() { control.Workdir = "/" },
		"network": func() { control.Network = caisson.Network{Mode: caisson.NetworkHost} },
	} {
		control = t.Spec()
		control.Options = json.RawMessage(`{"do":"say"}`)
		change()
		if b := t.startUnless(control, caisson.ErrInvalid, caisson.ErrUnsupported, caisson.ErrDenied); b != nil {
			t.Errorf("a task sets %s", name)
		}
	}
}

func payloadForks(t *Trial) {
	n := time.Now().UnixNano() % 1_000_000
	spec := t.Spec()
	spec.Options = json.RawMessage(fmt.Sprintf(`{"do":"fork","n":%06d}`, n+1_000_000))
	b := t.start(spec)
	b.wait()
	b.destroy()
	marker := fmt.Sprintf("sleep\x001%06d", n+1_000_000)
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	t.OK(err, "Glob")
	for _, name := range list {
		if line, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(line), marker) {
			t.Errorf("%s still runs", filepath.Dir(name))
		}
	}
}

func payloadMessage(t *Trial) {
	spec := t.Spec()
	spec.Options = json.RawMessage(`{"do":"flood"}`)
	const most = 4 << 10
	exit := t.start(spec).wait()
	if exit.Reason != caisson.ReasonExited || exit.Code != 1 {
		t.Errorf("it ended with %s, code %d", exit.Reason, exit.Code)
	}
	if len(exit.Message) > most || strings.Contains(exit.Message, "\n") {
		t.Errorf("its message has %d bytes", len(exit.Message))
	}
}
