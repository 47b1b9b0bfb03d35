//go:build unix

package git

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// killDelay is how long what git left running may hold its output open.
const killDelay = 5 * time.Second

// A failure is what git said when it failed.
type failure struct {
	command string // such as "fetch"
	stderr  string
	err     error
}

func (f *failure) Error() string { return "git " + f.command + ": " + explain(f.stderr, f.err) }

func (f *failure) Unwrap() error { return f.err }

// git runs git with its output going to out, nil for nowhere. When it returns
// nothing of git runs any more. Errors: the context's; *failure.
func (r *repo) git(ctx context.Context, out io.Writer, args ...string) error {
	// The process is told when its parent thread dies, which must then be there
	// until it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stderr tail
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Dir, cmd.Env = r.home, environment(r.home, r.src)
	cmd.Stdout, cmd.Stderr = out, &stderr
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = killDelay
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
		killGroup(cmd.Process.Pid)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &failure{command: args[0], stderr: stderr.String(), err: err}
}

// killGroup kills a group of processes.
func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// text runs git and returns the first line of its output.
func (r *repo) text(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := r.git(ctx, &out, args...)
	line, _, _ := bytes.Cut(out.Bytes(), []byte("\n"))
	return string(line), err
}

// stream runs git and has read read its output as it comes. If read fails git
// is ended.
func (r *repo) stream(ctx context.Context, read func(io.Reader) error, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(r.git(ctx, pw, args...))
	}()
	err := read(pr)
	if err == nil {
		_, err = io.Copy(io.Discard, pr)
	}
	cancel()
	pr.CloseWithError(err)
	<-done
	return err
}

// maxStderr is how much of what git says is kept: the end.
const maxStderr = 16 << 10

// A tail keeps the end of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - maxStderr; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.data) }
