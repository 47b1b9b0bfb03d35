package attack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// A Place is where attacks are tried.
type Place struct {
	Engine   engine.Engine
	Features *engine.Features
	// Dir is a folder of the host that everyone may enter. Attacks make files
	// there that no sandbox may see.
	Dir string
	// Owner is who work folders belong to.
	Owner engine.Owner
	// Spec returns a spec whose program is the inside program with args, with
	// folders of its own. A single argument is a line of words.
	Spec func(args ...string) *engine.Spec
	// Argv returns the arguments that run the inside program in an exec.
	Argv func(args ...string) []string
	// Inside is the path on the host of the inside program.
	Inside string
	// Image has a spec's program run in a root file system with these files in
	// addition to the inside program. Nil: the engine runs no images.
	Image func(spec *engine.Spec, files []File) error
	// Hidden are folders of the host that no sandbox may see anything of.
	Hidden []string
	// Programs are paths of the programs that the engine starts on the host.
	Programs []string
	// Rounds multiplies how often a race is tried; 0: once.
	Rounds int
	// Few has attacks that try many of a kind, one sandbox each, try some of them, and
	// races have fewer rounds: for engines that take a second to make one.
	Few bool

	// loose are rules that every allow-list has in addition, by which tests see
	// that attacks can succeed.
	loose []string
}

// A Trial is one attack being tried. What it finds is recorded.
type Trial struct {
	*Place
	ctx      context.Context
	imageRan bool // a plain image was seen to work

	mu           sync.Mutex
	failures     []string
	untried      []string
	inapplicable []string
	cleanups     []func()
}

// Errorf says that the attack is not held, and goes on.
func (t *Trial) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// OK ends the trial if there is an error. One that says that the engine can't
// do this here makes the attack inapplicable.
func (t *Trial) OK(err error, call string) {
	if err == nil {
		return
	}
	_, file, line, _ := runtime.Caller(1)
	t.mu.Lock()
	if errors.Is(err, caisson.ErrUnsupported) {
		t.inapplicable = append(t.inapplicable, err.Error())
	} else {
		t.untried = append(t.untried, fmt.Sprintf("%s (%s:%d): %v", call, filepath.Base(file), line, err))
	}
	t.mu.Unlock()
	runtime.Goexit()
}

// Inapplicable ends the trial because it can't show anything here.
func (t *Trial) Inapplicable(format string, args ...any) {
	t.mu.Lock()
	t.inapplicable = append(t.inapplicable, fmt.Sprintf(format, args...))
	t.mu.Unlock()
	runtime.Goexit()
}

// After calls f after the attack, the last first.
func (t *Trial) After(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// some returns what is tried of a list.
func (t *Trial) some(list []string) []string {
	if !t.Few {
		return list
	}
	const each = 4
	var few []string
	for i := 0; i < len(list); i += each {
		few = append(few, list[i])
	}
	return few
}

// Times returns how often a race of n rounds is tried.
func (t *Trial) Times(n int) int {
	const each = 5
	if t.Few {
		n = (n + each - 1) / each
	}
	return n * max(t.Rounds, 1)
}

// kind checks that an error is of one of some kinds.
func (t *Trial) kind(err error, call string, kinds ...caisson.Kind) {
	if !t.oneOf(err, kinds) {
		t.Errorf("%s = %v, want an error of kind %v", call, err, kinds)
	}
}

// Folder makes a folder of the host that no sandbox may reach.
func (t *Trial) Folder(name string) string {
	path := filepath.Join(t.Dir, name)
	t.OK(os.MkdirAll(path, 0o755), "MkdirAll")
	return path
}

// Flag makes a file of the host whose text no sandbox may see.
func (t *Trial) Flag() (path, text string) {
	path, text = filepath.Join(t.Dir, "flag"), fmt.Sprintf("flag-%x", time.Now().UnixNano())
	t.OK(os.WriteFile(path, []byte(text), 0o644), "WriteFile")
	return path, text
}

// Empty checks that nothing was made in a folder of the host.
func (t *Trial) Empty(dir string) {
	entries, err := os.ReadDir(dir)
	t.OK(err, "ReadDir")
	if len(entries) > 0 {
		t.Errorf("%s was made in a folder of the host", entries[0].Name())
	}
}

// A box is a sandbox whose program was started.
type box struct {
	t    *Trial
	spec *engine.Spec
	engine.Sandbox
	process engine.Process
}

// launch creates and starts a sandbox that runs the inside program with args.
func (t *Trial) launch(args ...string) *box { return t.start(t.Spec(args...)) }

// start creates and starts a sandbox.
func (t *Trial) start(spec *engine.Spec) *box {
	b := t.startUnless(spec)
	if b == nil {
		runtime.Goexit()
	}
	return b
}

// startUnless creates and starts a sandbox, or returns nil where the engine
// refuses to with an error of one of the kinds, which is as good as if the
// attack were held.
func (t *Trial) startUnless(spec *engine.Spec, kinds ...caisson.Kind) *box {
	sb, err := t.Engine.Create(t.ctx, spec)
	if t.oneOf(err, kinds) {
		return nil
	}
	t.OK(err, "Create")
	b := &box{t: t, spec: spec, Sandbox: sb}
	t.After(b.destroy)
	b.process, err = sb.Start(t.ctx)
	if t.oneOf(err, kinds) {
		return nil
	}
	t.OK(err, "Start")
	return b
}

// oneOf reports whether an error is of one of some kinds, and not the end of
// the trial's time.
func (t *Trial) oneOf(err error, kinds []caisson.Kind) bool {
	return err != nil && t.ctx.Err() == nil && slices.Contains(kinds, caisson.KindOf(err))
}

// run runs a sandbox to its end.
func (t *Trial) run(args ...string) *box {
	b := t.launch(args...)
	b.wait()
	return b
}

// destroy removes the sandbox, also where the attack's time is up. It may be
// called again.
func (b *box) destroy() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.ctx), leaving)
	defer cancel()
	if err := b.Destroy(ctx); err != nil {
		b.t.Errorf("the sandbox can't be destroyed: %v", err)
	}
}

// wait returns how the program ended.
func (b *box) wait() caisson.Exit {
	exit, err := b.process.Wait(b.t.ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		b.t.Errorf("the program did not end in time")
	}
	b.t.OK(err, "Wait")
	return exit
}

// kill ends the program.
func (b *box) kill() caisson.Exit {
	err := b.process.Stop(b.t.ctx, engine.Stop{Reason: caisson.ReasonKilled})
	if !errors.Is(err, caisson.ErrEnded) {
		b.t.OK(err, "Stop")
	}
	return b.wait()
}

// success ends the trial if the program did not end with code 0: what it says
// is then not what was asked.
func (b *box) success() {
	exit := b.wait()
	if exit.Reason != caisson.ReasonExited || exit.Code != 0 {
		b.t.OK(fmt.Errorf("it ended with %s, code %d, signal %d %s; stderr: %.300q", exit.Reason, exit.Code, exit.Signal,
			exit.Message, b.output(tasklog.Stderr)), "the program")
	}
}

// output returns the bytes of one stream of the log as it is now.
func (b *box) output(stream tasklog.Stream) string {
	var out strings.Builder
	err := tasklog.Follow(context.WithoutCancel(b.t.ctx), b.spec.Log, 0, func() bool { return true },
		func(r tasklog.Record) error {
			if r.Stream == stream {
				out.Write(r.Data)
			}
			return nil
		})
	if !errors.Is(err, caisson.ErrNotFound) {
		b.t.OK(err, "reading the log")
	}
	return out.String()
}

func (b *box) stdout() string { return b.output(tasklog.Stdout) }

// says waits until the program has printed a line.
func (b *box) says(line string) {
	for !slices.Contains(lines(b.stdout()), line) {
		if b.t.ctx.Err() != nil {
			b.t.OK(fmt.Errorf("it never said %q: %.300q", line, b.output(tasklog.Stderr)), "the program")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// facts returns what the program's report says.
func (b *box) facts() *act.Facts {
	b.success()
	return b.t.facts(b.stdout())
}

// facts reads a report.
func (t *Trial) facts(report string) *act.Facts {
	f := new(act.Facts)
	t.OK(json.Unmarshal([]byte(report), f), "the inside program's report")
	return f
}

// lines returns the lines of a text.
func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// denied reports whether the name of an error says that something is not
// permitted, or does not exist.
func denied(name string) bool {
	switch name {
	case "EPERM", "EACCES", "ENOSYS", "ENOENT", "EROFS", "ENXIO", "ENODEV", "EAFNOSUPPORT", "EPROTONOSUPPORT":
		return true
	}
	// TIOCSTI is EIO where the host's administrator has turned it off.
	return name == "EIO"
}

// notRoot is the Host of attacks that only root can set up.
func notRoot() string {
	if os.Geteuid() != 0 {
		return "only root can set it up"
	}
	return ""
}

// Context returns what bounds the trial.
func (t *Trial) Context() context.Context { return t.ctx }

// Failed reports whether the attack was seen not to be held.
func (t *Trial) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}
