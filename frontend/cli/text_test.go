package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"plain text", "plain text"},
		{"naïve 日本", "naïve 日本"},
		{"\x1b[2Jgone", `\x1b[2Jgone`},
		{"a\tb\nc\r", `a\x09b\x0ac\x0d`},
		{"\x7f\u009b31m", `\x7f\u009b31m`},
		{"bad \xff\xfe utf8", `bad \xff\xfe utf8`},
		{"replaced \uFFFD", "replaced \uFFFD"},
		{"left\u202eright", `left\u202eright`},
		{"zero\u200bwidth", `zero\u200bwidth`},
		{"line\u2028end", `line\u2028end`},
	} {
		if got := clean(tt.in); got != tt.want {
			t.Errorf("clean(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine("a\n  b\r\n\nc\x1b\n"), `a; b; c\x1b`; got != want {
		t.Errorf("oneLine = %q, want %q", got, want)
	}
}

func TestTablesAreClean(t *testing.T) {
	var b bytes.Buffer
	list := []executor.Info{{
		ID: "0123456789abcdef", Name: "evil\x1b[2J\nname", Engine: "mem", State: caisson.StateRunning, Attempt: 2, Progress: 0.5,
		AcceptedAt: time.Unix(1000, 0),
	}}
	if err := printTasks(&b, list, time.Unix(1090, 0)); err != nil {
		t.Fatal(err)
	}
	want := "ID                NAME               ENGINE  STATE        ATTEMPT  ACCEPTED   RESULT\n" +
		"0123456789abcdef  evil\\x1b[2J; name  mem     running 50%  2        1m30s ago  -\n"
	if b.String() != want {
		t.Errorf("table:\n%swant:\n%s", b.String(), want)
	}
}

func TestTablesTellParts(t *testing.T) {
	var b bytes.Buffer
	list := []executor.Info{
		{ID: "0123456789abcdef", Name: "whole", State: caisson.StateRunning, AcceptedAt: time.Unix(1000, 0)},
		{
			ID: "1123456789abcdef", Name: "step", Engine: "mem", State: caisson.StateRunning, AcceptedAt: time.Unix(1000, 0),
			Parent: "0123456789abcdef", Part: "row/main",
		},
	}
	if err := printTasks(&b, list, time.Unix(1090, 0)); err != nil {
		t.Fatal(err)
	}
	want := "ID                NAME   ENGINE  STATE    ATTEMPT  ACCEPTED   RESULT  PART OF\n" +
		"0123456789abcdef  whole  -       running  -        1m30s ago  -       -\n" +
		"1123456789abcdef  step   mem     running  -        1m30s ago  -       0123456789abcdef row/main\n"
	if b.String() != want {
		t.Errorf("table:\n%swant:\n%s", b.String(), want)
	}
}

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		in   caisson.Bytes
		want string
	}{{-1, "-"}, {0, "0"}, {999, "999"}, {1000, "1.0k"}, {64 * caisson.MiB, "64m"}, {1536 * caisson.MiB, "1.5g"}, {5000 * caisson.TiB, "5000t"}} {
		if got := size(tt.in); got != tt.want {
			t.Errorf("size(%d) = %q, want %q", int64(tt.in), got, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		in   time.Duration
		want string
	}{
		{-time.Second, "0s"},
		{59 * time.Second, "59s"},
		{61 * time.Second, "1m01s"},
		{25*time.Hour + 3*time.Minute, "25h03m"},
		{72 * time.Hour, "3d"},
	} {
		if got := span(tt.in); got != tt.want {
			t.Errorf("span(%v) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestOutput(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	records := []executor.LogRecord{
		record(tasklog.Stdout, at, "one\ntw"),
		record(tasklog.Stderr, at, "\x1b[1mraw\x00"),
		record(tasklog.Stdout, at, "o\n\n"),
		record(tasklog.System, at, "limit\x1b reached\nsecond\n"),
		record(tasklog.Stderr, at, "end\n"),
	}
	const stamp = "2026-01-02T03:04:05.000006Z "
	for _, tt := range []struct {
		name           string
		stamp          bool
		stdout, stderr string
	}{
		{"Raw", false, "one\ntwo\n\n", "\x1b[1mraw\x00\ncaisson: limit\\x1b reached\ncaisson: second\nend\n"},
		{
			"Stamped", true, stamp + "one\n" + stamp + "two\n" + stamp + "\n",
			stamp + "\x1b[1mraw\x00\n" + stamp + "caisson: limit\\x1b reached\n" + stamp + "caisson: second\n" + stamp + "end\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			out := newOutput(&stdout, &stderr)
			out.stamp = tt.stamp
			for _, rec := range records {
				if err := out.write(rec); err != nil {
					t.Fatal(err)
				}
			}
			if stdout.String() != tt.stdout {
				t.Errorf("stdout = %q, want %q", stdout.String(), tt.stdout)
			}
			if stderr.String() != tt.stderr {
				t.Errorf("stderr = %q, want %q", stderr.String(), tt.stderr)
			}
		})
	}
}

func record(stream tasklog.Stream, at time.Time, data string) executor.LogRecord {
	return executor.LogRecord{Record: tasklog.Record{Stream: stream, Time: at, Data: []byte(data)}, Attempt: 1, Step: "main"}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   caisson.Result
		want string
	}{
		{"Success", caisson.Result{Success: true, Step: "main", Exit: caisson.Exit{Reason: caisson.ReasonExited}}, ""},
		{"Code", caisson.Result{Step: "main", Exit: caisson.Exit{Reason: caisson.ReasonExited, Code: 3}}, ""},
		{"Error", caisson.Result{Error: &caisson.Failure{Message: "stage in: x: gone"}}, "stage in: x: gone"},
		{
			"NotFound",
			caisson.Result{Step: "main", Exit: caisson.Exit{Reason: caisson.ReasonExited, Code: 127, Message: "nope: not found"}},
			"main: nope: not found",
		},
		{"Signal", caisson.Result{Step: "main", Exit: caisson.Exit{Reason: caisson.ReasonSignaled, Signal: 11}}, "main: ended by signal SEGV"},
		{"OOM", caisson.Result{Step: "pre-0", Exit: caisson.Exit{Reason: caisson.ReasonOOM}}, "pre-0: out of memory: killed at its memory limit"},
		{"Timeout", caisson.Result{Step: "main", Exit: caisson.Exit{Reason: caisson.ReasonTimeout, Message: "1s is over"}}, "main: timeout: 1s is over"},
	} {
		if got := explain(&tt.in); got != tt.want {
			t.Errorf("%s: explain = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, tt := range []struct {
		in   string
		want time.Time
	}{
		{"", time.Time{}},
		{"10m", now.Add(-10 * time.Minute)},
		{"90", now.Add(-90 * time.Second)},
		{"2026-05-06T07:00:00Z", time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)},
		{"2026-05-06T07:00:00.5+02:00", time.Date(2026, 5, 6, 5, 0, 0, 5e8, time.UTC)},
		{"2026-05-06", time.Date(2026, 5, 6, 0, 0, 0, 0, time.Local)},
	} {
		got, err := parseSince(tt.in, now)
		if err != nil || !got.Equal(tt.want) {
			t.Errorf("parseSince(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
	if _, err := parseSince("yesterday", now); err == nil {
		t.Error("parseSince(yesterday): no error")
	}
}
