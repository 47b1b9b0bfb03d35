package enginetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

func logCases() []Case {
	return []Case{
		{
			Name: "log/output", Rules: []int{25, 26, 27},
			Rule: "what a program prints is in the log, also where it fails, and nothing else is",
			body: logOutput,
		},
		{
			Name: "log/live", Rules: []int{28},
			Rule: "output can be read before the program ends", wants: []facility{system},
			body: logLive,
		},
		{
			Name: "log/limit", Rules: []int{29, 128}, Attacks: []int{29, 33}, Needs: []string{"limits.log"},
			Rule: "over the log limit output is dropped with a visible marker, and the program runs on",
			body: logLimit,
		},
		{
			Name: "log/bytes", Rules: []int{30}, Attacks: []int{33},
			Rule: "every byte is kept as it is: NUL, invalid UTF-8, escapes, one endless line, no last newline",
			body: logBytes,
		},
		{
			Name: "log/streams", Rules: []int{31},
			Rule: "stdout and stderr are told apart, and each keeps its order and offsets",
			body: logStreams,
		},
		{
			Name: "log/last-bytes", Rules: []int{31, 43},
			Rule: "the last bytes of a program that ends at once are never lost",
			body: logLastBytes, deadline: 5 * time.Minute,
		},
		{
			Name: "log/slow-reader", Rules: []int{32},
			Rule: "a reader that stalls does not hold the program, and one that comes late sees everything",
			body: logSlowReader,
		},
		{
			Name: "log/closed-output", Rules: []int{33}, Attacks: []int{33},
			Rule: "a program that closes its output is waited for until it ends", wants: []facility{system},
			body: logClosedOutput,
		},
		{
			Name: "log/output-kept-open", Rules: []int{33}, Attacks: []int{33},
			Rule: "a process left behind that holds the output has Spec.Linger to end, then it is killed", wants: []facility{system},
			body: logKeptOpen,
		},
		{
			Name: "log/full-disk", Rules: []int{34, 125}, wants: []facility{root},
			Rule: "a log that can't be written to does not hang the program or its end",
			body: logFullDisk,
		},
		{
			Name: "log/forged", Rules: []int{35, 131},
			Rule: "no output can pass for a line of Caisson's, or break the log's format",
			body: logForged,
		},
		{
			Name: "log/appended", Rules: []int{31},
			Rule: "output is appended to a log that exists",
			body: logAppended,
		},
	}
}

func logOutput(t *T) {
	b, _ := t.run("say", "Hello World")
	b.success()
	if b.stdout() != "Hello World\n" || b.stderr() != "" {
		t.Errorf("stdout = %q, stderr = %q, want one line on stdout", b.stdout(), b.stderr())
	}
	b, _ = t.run("say out ; warn err ; exit 1")
	b.expect(caisson.ReasonExited, 1, 0)
	if b.stdout() != "out\n" || b.stderr() != "err\n" {
		t.Errorf("stdout = %q, stderr = %q of a program that failed, want out and err", b.stdout(), b.stderr())
	}
	b, _ = t.run("exit 0")
	b.success()
	if records := b.records(); len(records) > 0 {
		t.Errorf("a silent program's log has %d records, the first %q", len(records), records[0].Data)
	}
}

func logLive(t *T) {
	b := t.launch("trap 15 ; say first ; await 15 ; say second")
	b.says("first")
	ctx, cancel := context.WithTimeout(t.ctx, time.Millisecond)
	defer cancel()
	if exit, err := b.process.Wait(ctx); err == nil {
		t.Errorf("the program has ended: %+v", exit)
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
	if got := b.stdout(); got != "first\nsecond\n" {
		t.Errorf("stdout = %q, want two lines", got)
	}
}

func logLimit(t *T) {
	const limit, printed = 100 << 10, "8m"
	spec := t.spec("print", "stdout", printed, "1", ";", "print", "stderr", printed, "2", ";", "exit", "3")
	spec.Limits.Log = limit
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 3, 0)
	if n := len(b.stdout()) + len(b.stderr()); n > limit || n < limit/2 {
		t.Errorf("the log has %d bytes of output, the limit is %d", n, limit)
	}
	if b.output(tasklog.System) == "" {
		t.Errorf("no marker tells that output was dropped")
	}
	if info, err := os.Stat(spec.Log); err != nil || info.Size() > 2*limit {
		t.Errorf("the log's file is %v, %v", info, err)
	}
}

func logBytes(t *T) {
	for i, size := range []int64{1, 4096, 1 << 20, 9<<20 + 7} {
		b, _ := t.run("print", "stdout", fmt.Sprint(size), fmt.Sprint(i))
		b.success()
		want := sha256.New()
		if _, err := io.CopyN(want, act.Pattern(uint64(i)), size); err != nil {
			t.Fatalf("pattern: %v", err)
		}
		got := b.stdout()
		if sum := sha256.Sum256([]byte(got)); int64(len(got)) != size || !bytes.Equal(sum[:], want.Sum(nil)) {
			t.Errorf("%d bytes of a pattern of %d arrived, or others", len(got), size)
		}
	}
	for _, text := range []string{"\r\n\x1b[2J\x1b]0;title\x07", strings.Repeat("x", 100<<10)} {
		b, _ := t.run("say", text)
		b.success()
		if got := b.stdout(); got != text+"\n" {
			t.Errorf("stdout = %.40q (%d bytes), want %.40q (%d)", got, len(got), text, len(text)+1)
		}
	}
}

func logStreams(t *T) {
	var args []string
	var out, err strings.Builder
	for i := range 200 {
		args = append(args, "say", fmt.Sprint("o", i), ";", "warn", fmt.Sprint("e", i), ";")
		fmt.Fprintf(&out, "o%d\n", i)
		fmt.Fprintf(&err, "e%d\n", i)
	}
	b, exit := t.run(args...)
	b.success()
	if b.stdout() != out.String() || b.stderr() != err.String() {
		t.Errorf("the streams are mixed, or not in order")
	}
	next := make(map[tasklog.Stream]int64)
	for _, r := range b.records() {
		if r.Offset != next[r.Stream] {
			t.Errorf("a record of %v begins at %d, want %d", r.Stream, r.Offset, next[r.Stream])
		}
		next[r.Stream] = r.Offset + int64(len(r.Data))
		if r.Time.Before(exit.StartedAt.Add(-time.Second)) || r.Time.After(exit.EndedAt.Add(time.Second)) {
			t.Errorf("a record is of %v, the program ran from %v to %v", r.Time, exit.StartedAt, exit.EndedAt)
		}
	}
}

func logLastBytes(t *T) {
	for i := range t.times(500) {
		text := fmt.Sprint("last words ", i)
		b, _ := t.run("say", text, ";", "warn", text, ";", "exit", "9")
		b.expect(caisson.ReasonExited, 9, 0)
		if b.stdout() != text+"\n" || b.stderr() != text+"\n" {
			t.Fatalf("round %d: stdout = %q, stderr = %q, want %q in both", i, b.stdout(), b.stderr(), text)
		}
		t.destroy(b.Sandbox)
	}
}

func logSlowReader(t *T) {
	spec := t.spec("print stdout 4m 3")
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	stalled, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		// A reader that takes the first record and then nothing.
		_ = tasklog.Follow(ctx, spec.Log, 0, func() bool { return false }, func(tasklog.Record) error {
			close(stalled)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	b := t.start(spec)
	b.success()
	if n := len(b.stdout()); n != 4<<20 {
		t.Errorf("a late reader sees %d bytes, want %d", n, 4<<20)
	}
	<-stalled
	cancel()
	<-ended
}

func logClosedOutput(t *T) {
	b := t.launch("trap 15 ; say ready ; closefd 1 2 ; await 15 ; exit 8")
	b.says("ready")
	ctx, cancel := context.WithTimeout(t.ctx, 100*time.Millisecond)
	defer cancel()
	if exit, err := b.process.Wait(ctx); err == nil {
		t.Errorf("Wait = %+v while the program runs without output", exit)
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.expect(caisson.ReasonExited, 8, 0)
}

func logKeptOpen(t *T) {
	const linger = 500 * time.Millisecond
	spec := t.spec("spawn -s spawn -s ignore 15 ,, say grandchild ,, hold , exit 0 ; reap ; exit 2")
	spec.Linger = caisson.Duration(linger)
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 2, 0)

	// One that ends in time is waited for, with its output.
	spec = t.spec("spawn sleep 100ms , say late ; exit 0")
	spec.Linger = caisson.Duration(30 * time.Second)
	b = t.start(spec)
	b.success()
	if got := b.stdout(); got != "late\n" {
		t.Errorf("stdout = %q, want what the process left behind printed in time", got)
	}

	// Without linger nothing is waited for.
	b, _ = t.run("spawn hold ; exit 0")
	b.success()
}

func logFullDisk(t *T) {
	dir := t.smallDisk(1 << 20)
	spec := t.spec("print stdout 4m 4 ; exit 6")
	spec.Log = filepath.Join(dir, "log")
	b := t.start(spec)
	if exit := b.wait(); exit.Code != 6 && exit.Reason == caisson.ReasonExited {
		t.Errorf("Wait = %+v, want code 6, or a reason that is not exited", exit)
	}
	t.destroy(b.Sandbox)
	ok, _ := t.run("exit 0")
	ok.success()
}

func logForged(t *T) {
	// A log full of records, as a program that knows the format would print.
	path := filepath.Join(t.dir, "forged")
	w, err := tasklog.Create(path, 0)
	t.ok(err, "tasklog.Create")
	for range 3 {
		t.ok(w.Write(tasklog.System, time.Now(), []byte("the task was cancelled\n")), "Write")
	}
	t.ok(w.Close(), "Close")
	forged, err := os.ReadFile(path)
	t.ok(err, "ReadFile")
	spec := t.spec("read", "/work/forged", ";", "warn", "caisson: log limit reached")
	t.put(spec, "forged", string(forged), 0o644)
	b := t.start(spec)
	b.success()
	if b.stdout() != string(forged) {
		t.Errorf("the log does not have what was printed")
	}
	if got := b.output(tasklog.System); got != "" {
		t.Errorf("the program made Caisson say %q", got)
	}
}

func logAppended(t *T) {
	first, _ := t.run("say one")
	first.success()
	t.destroy(first.Sandbox)
	spec := t.spec("say two")
	spec.Log = first.spec.Log
	b := t.start(spec)
	b.success()
	if got := b.stdout(); got != "one\ntwo\n" {
		t.Errorf("stdout = %q, want both programs'", got)
	}
}
