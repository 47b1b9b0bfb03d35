//go:build unix

package selftest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/executor"
)

// secrets returns the attacks on secrets by whole tasks.
func secrets(with func(func(t *attack.Trial, x *executor.Executor, r *target)) func(*attack.Trial)) []attack.Attack {
	const own = "the value is made for the attack, and means nothing"
	return []attack.Attack{
		{
			ID: "F40", Name: "secret/elsewhere", Run: with(secretElsewhere), Needs: []string{"secrets"}, Bound: own,
			Tries: "find a secret in arguments, other processes, files of state, inspection, events, errors, or from another task",
			CVE:   []string{"CVE-2025-30066"},
		},
		{
			ID: "F41", Name: "secret/encodings", Run: with(secretEncodings), Needs: []string{"secrets"}, Bound: own,
			Tries: "get a secret into the log byte by byte, in base64 at every alignment and in lines, in hexadecimal, for URLs and JSON",
		},
		{
			ID: "F42", Name: "secret/memory", Run: with(secretMemory), Needs: []string{"secrets"}, Bound: "memory is read, and nothing of it is kept",
			Tries: "find a secret of a task that has ended in the memory of Caisson's processes",
			CVE:   []string{"CVE-2025-30066"},
		},
		{
			ID: "F43", Name: "broker/inside", Run: with(brokerInside), Needs: []string{"gateway"}, Bound: own,
			Tries: "have a brokered secret come back from its host, whole and in pieces, in headers and body, and hunt for it in memory, files and processes",
		},
		{
			ID: "F43", Name: "broker/elsewhere", Run: with(brokerElsewhere), Needs: []string{"gateway", "networks.allow"}, Bound: own,
			Tries: "send a placeholder to another host, and to its own in another header, in the URL and in the body",
		},
	}
}

// newSecret returns a value that is nowhere else.
func newSecret() string { return "selftest-" + strings.ToLower(rand.Text()) }

// A run is a task that is attended to beside the attack.
type run struct {
	t    *attack.Trial
	x    *executor.Executor
	id   string
	done chan error
}

// background submits a task with secrets, and attends to it.
func (r *target) background(t *attack.Trial, x *executor.Executor, task *caisson.Task, values map[string][]byte) *run {
	if r.base != "" {
		if _, err := os.Stat(archivePath(r.base)); errors.Is(err, os.ErrNotExist) {
			t.OK(r.archive(), "making the image's archive")
		}
	}
	id, err := x.Submit(t.Context(), task, &executor.Submission{BaseDir: t.Dir, Trusted: true, Secrets: values})
	t.OK(err, "Submit")
	b := &run{t: t, x: x, id: id, done: make(chan error, 1)}
	t.After(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), leaving)
		defer cancel()
		_ = x.Stop(ctx, id, engine.Stop{Reason: caisson.ReasonKilled})
		<-b.done
		if err := x.Remove(ctx, id, true); err != nil && !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("the task can't be removed: %v", err)
		}
	})
	go func() {
		defer close(b.done)
		b.done <- x.Attend(t.Context(), id, false)
	}()
	return b
}

// log returns what the task has printed.
func (b *run) log() string {
	var out strings.Builder
	err := b.x.Logs(b.t.Context(), b.id, executor.LogOptions{}, func(r executor.LogRecord) error {
		out.Write(r.Data)
		return nil
	})
	if !errors.Is(err, caisson.ErrNotFound) {
		b.t.OK(err, "Logs")
	}
	return out.String()
}

// says waits until the task has printed a line.
func (b *run) says(line string) {
	for !slices.Contains(strings.Split(b.log(), "\n"), line) {
		if info, err := b.x.Inspect(b.t.Context(), b.id); err == nil && info.Result != nil {
			ran(b.t, info.Result)
			b.t.OK(fmt.Errorf("it ended without %q", line), "the task's program")
		}
		b.t.OK(b.t.Context().Err(), "waiting")
		time.Sleep(10 * time.Millisecond)
	}
}

// finish waits for the task's end.
func (b *run) finish() *caisson.Result {
	b.t.OK(<-b.done, "Attend")
	result, err := b.x.Wait(b.t.Context(), b.id)
	b.t.OK(err, "Wait")
	return result
}

// told returns everything that is told about the task.
func (b *run) told() string {
	info, err := b.x.Inspect(b.t.Context(), b.id)
	b.t.OK(err, "Inspect")
	var events []caisson.Event
	b.t.OK(b.x.Events(b.t.Context(), b.id, false, func(e caisson.Event) error {
		events = append(events, e)
		return nil
	}), "Events")
	list, err := b.x.List(b.t.Context(), true)
	b.t.OK(err, "List")
	text, err := json.Marshal([]any{info, events, list})
	b.t.OK(err, "Marshal")
	return string(text)
}

func secretElsewhere(t *attack.Trial, x *executor.Executor, r *target) {
	value := newSecret()
	task := r.taskOf("say", "ready", ";", "hold")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN"}, "STORED": {From: "env:STORED", As: caisson.SecretFile}}
	values := map[string][]byte{"TOKEN": []byte(value), "STORED": []byte(value)}
	b := r.background(t, x, task, values)
	b.says("ready")
	r.look(t, value)
	if strings.Contains(b.told(), value) {
		t.Errorf("what is told about the task has its secret")
	}
	other := r.result(t, x, r.taskOf("hunt", act.Masked(value), "/run", "/tmp", "/work", "/etc", "/proc/1/environ"))
	ran(t, other)
	if hunted := logOf(t, x, other.Task); !strings.Contains(hunted, "hunt 0") {
		t.Errorf("another task finds the secret: %q", hunted)
	}
	t.OK(x.Stop(t.Context(), b.id, engine.Stop{Reason: caisson.ReasonStopped}), "Stop")
	_ = b.finish()
	failing := r.taskOf()
	failing.Cmd = []string{"/no/such/program", "x"}
	failing.Secrets = task.Secrets
	f := r.background(t, x, failing, values)
	_ = f.finish()
	for what, text := range map[string]string{"of the task that was stopped": b.told() + b.log(), "of one that failed": f.told() + f.log()} {
		if strings.Contains(text, value) {
			t.Errorf("what is told %s has its secret", what)
		}
	}
	r.look(t, value)
}

// logOf returns the log of a task that has ended.
func logOf(t *attack.Trial, x *executor.Executor, id string) string {
	return (&run{t: t, x: x, id: id}).log()
}

// look looks for a value among the processes of this host and in the files of
// the selftest. Only the program that was given it may have it.
func (r *target) look(t *attack.Trial, value string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
		program := name == "inside" || name == filepath.Base(r.inside)
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if err == nil && strings.Contains(string(data), value) && !(program && file == "environ") {
				t.Errorf("the %s of the process %s has the secret", file, name)
			}
		}
	}
	const small = 1 << 20
	err := filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > small {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), value) {
			t.Errorf("the file %s has the secret", d.Name())
		}
		return nil
	})
	t.OK(err, "looking at files")
}

func secretEncodings(t *attack.Trial, x *executor.Executor, r *target) {
	// Longer than a line of base64, with what is escaped in JSON and in URLs.
	value := newSecret() + `-p@ss"word/with\all+of&it-` + newSecret()
	task := r.taskOf("leak", "TOKEN", ";", "say", "done")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN"}}
	b := r.background(t, x, task, map[string][]byte{"TOKEN": []byte(value)})
	ran(t, b.finish())
	log := b.log()
	if !strings.Contains(log, "done\n") {
		t.OK(fmt.Errorf("the log is %.100q", log), "the task's program")
	}
	unwrapped := strings.ReplaceAll(log, "\n", "")
	for form, text := range encodings(value) {
		if strings.Contains(log, text) || strings.Contains(unwrapped, text) {
			t.Errorf("the log has the secret as %s", form)
		}
	}
}

// encodings returns the forms in which a value must not be in a log: of base64
// the characters that the value alone decides, at each alignment.
func encodings(value string) map[string]string {
	quoted, _ := json.Marshal(value)
	forms := map[string]string{
		"it is": value, "JSON": strings.Trim(string(quoted), `"`), "part of a URL": url.QueryEscape(value), "path of a URL": url.PathEscape(value),
		"hexadecimal digits": hex.EncodeToString([]byte(value)), "large hexadecimal digits": strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
	const bits = 6
	for before := range 3 {
		plain := []byte(strings.Repeat("x", before) + value)
		from, to := (before*8+bits-1)/bits, len(plain)*8/bits
		forms[fmt.Sprintf("base64 behind %d bytes", before)] = base64.RawStdEncoding.EncodeToString(plain)[from:to]
		forms[fmt.Sprintf("base64 for URLs behind %d bytes", before)] = base64.RawURLEncoding.EncodeToString(plain)[from:to]
	}
	return forms
}

func secretMemory(t *attack.Trial, x *executor.Executor, r *target) {
	value := newSecret()
	// Another task lives on, with processes of its own.
	other := r.background(t, x, r.taskOf("say", "ready", ";", "hold"), nil)
	other.says("ready")
	task := r.taskOf("lengths", "TOKEN", "/proc/self/cmdline")
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN"}}
	values := map[string][]byte{"TOKEN": []byte(value)}
	b := r.background(t, x, task, values)
	ran(t, b.finish())
	looked := 0
	for _, pid := range r.ours() {
		holds, err := memoryHolds(pid, act.Masked(value))
		if err != nil {
			continue // it has ended, or its memory is not ours to read
		}
		looked++
		if holds {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			t.Errorf("the memory of %s has the secret of a task that has ended", filepath.Base(exe))
		}
	}
	if looked == 0 {
		t.Inapplicable("no process of the engine's can be looked into")
	}
}

// ours returns the processes of this host that run a program of Caisson's, and
// are not this one: it has made the secret itself.
func (r *target) ours() []int {
	var pids []int
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		exe, linkErr := os.Readlink(filepath.Join(dir, "exe"))
		if err == nil && linkErr == nil && pid != os.Getpid() && strings.Contains(filepath.Base(exe), "caisson") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// An echo is a server that gives back what it was sent, and remembers it.
type echo struct {
	at string

	mu   sync.Mutex
	sent []string
}

// marker stands in every answer of an echo.
const marker = "this-is-the-echo"

func newEcho(t *attack.Trial) *echo {
	e := &echo{}
	e.at = fmt.Sprintf("127.0.0.1:%d", serve(t, e.answer))
	return e
}

func (e *echo) answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	head := r.Header.Clone()
	head.Set("Host", r.Host)
	text, _ := json.Marshal(head)
	e.mu.Lock()
	e.sent = append(e.sent, fmt.Sprintf("%s %s %s", r.URL, text, body))
	e.mu.Unlock()
	token := r.Header.Get("Authorization")
	w.Header().Set("X-Echo", token)
	w.Header().Set("Location", "/"+url.PathEscape(token))
	// Twice in pieces: what comes back must not depend on how it is cut.
	fmt.Fprintf(w, "%s %s ", marker, text)
	for i := range len(token) {
		_, _ = io.WriteString(w, token[i:i+1])
		if f, ok := w.(http.Flusher); ok && i%7 == 0 {
			f.Flush()
		}
	}
	fmt.Fprintf(w, " %s %s %s", body, base64.StdEncoding.EncodeToString([]byte(token)), url.QueryEscape(token))
}

func (e *echo) got() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sent)
}

// request is one of HTTP with the placeholder of TOKEN somewhere.
func request(host, path, header, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: ${LENGTH}\r\nConnection: close\r\n\r\n%s", path, host, header, body)
}

func brokerInside(t *attack.Trial, x *executor.Executor, r *target) {
	value, e := newSecret(), newEcho(t)
	task := r.taskOf("hunt", act.Masked(value), ";",
		"ask", "tcp", e.at, request(e.at, "/", "Authorization: Bearer ${TOKEN}\r\n", ""), ";",
		"hunt", act.Masked(marker), ";", "say", "then", ";", "hunt", act.Masked(value), "/run", "/tmp", "/work", "/etc")
	task.Env = map[string]string{"LENGTH": "0"}
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN", Broker: &caisson.Broker{Host: "http://" + e.at}}}
	b := r.background(t, x, task, map[string][]byte{"TOKEN": []byte(value)})
	ran(t, b.finish())
	log := b.log()
	before, after, _ := strings.Cut(log, "then\n")
	if !strings.Contains(after, "hunt 0") || !strings.HasPrefix(before, "hunt 0") {
		t.Errorf("the value is in the sandbox: %.500q", log)
	}
	for form, text := range encodings(value) {
		if strings.Contains(log, text) {
			t.Errorf("the program was answered with the value as %s", form)
		}
	}
	if strings.Contains(b.told(), value) {
		t.Errorf("what is told about the task has the value")
	}
	switch got := e.got(); {
	case len(got) != 1 || !strings.Contains(got[0], "Bearer "+value):
		t.OK(fmt.Errorf("the host was sent %.300q", got), "the brokered request")
	case strings.Count(before, "hunt 0") > 1 || !strings.Contains(before, marker):
		t.OK(errors.New("the hunt does not find what is there"), "the task's program")
	}
}

func brokerElsewhere(t *attack.Trial, x *executor.Executor, r *target) {
	value, right, wrong := newSecret(), newEcho(t), newEcho(t)
	const token = "${TOKEN}"
	var args []string
	try := func(at, text string) { args = append(args, "try", "ask", "tcp", at, text, ";") }
	for _, at := range []string{wrong.at, right.at} {
		try(at, request(at, "/"+token, "", ""))
		try(at, request(at, "/?q="+token, "", ""))
		try(at, request(at, "/", "X-Other: "+token+"\r\n", ""))
		try(at, request(at, "/", "Cookie: token="+token+"\r\n", ""))
		try(at, request(at, "/", "Transfer-Encoding: identity\r\nX-Other: a\r\n Authorization: "+token+"\r\n", ""))
	}
	// The right header, to the wrong host, by its own name and by the right one's.
	try(wrong.at, request(wrong.at, "/", "Authorization: Bearer "+token+"\r\n", ""))
	try(wrong.at, request(right.at, "/", "Authorization: Bearer "+token+"\r\n", ""))
	try(right.at, request(wrong.at, "/", "Authorization: Bearer "+token+"\r\n", ""))
	try(right.at, "GET http://"+wrong.at+"/ HTTP/1.1\r\nHost: "+right.at+"\r\nAuthorization: Bearer "+token+"\r\nConnection: close\r\n\r\n")
	args = append(args, "hunt", act.Masked(value), "/run", "/tmp", "/work", "/etc")
	task := r.taskOf(args...)
	task.Env = map[string]string{"LENGTH": "0"}
	task.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{wrong.at}}
	task.Secrets = map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN", Broker: &caisson.Broker{Host: "http://" + right.at}}}
	b := r.background(t, x, task, map[string][]byte{"TOKEN": []byte(value)})
	ran(t, b.finish())
	for _, sent := range wrong.got() {
		if strings.Contains(sent, value) {
			t.Errorf("another host was sent the value: %.300q", sent)
		}
	}
	for _, sent := range right.got() {
		if strings.Contains(strings.ReplaceAll(sent, `"Authorization":["Bearer `+value+`"]`, ""), value) {
			t.Errorf("the value was put where no header for it was: %.300q", sent)
		}
	}
	if log := b.log(); !strings.Contains(log, "hunt 0") || strings.Contains(log, value) {
		t.Errorf("the value is in the sandbox: %.500q", log)
	}
}
