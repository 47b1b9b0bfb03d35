package machine

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

// The descriptors that a QEMU is started with: its protocol and the guest's port.
// Whoever starts programs with three descriptors only can use these two, and the
// third for messages.
const (
	qmpFD   = 0
	agentFD = 1
)

// A process is a QEMU of this process's own, for looking at what it can do. The
// engine's run in sandboxes.
type process struct {
	cmd    *exec.Cmd
	qmp    *qmp.Client
	agent  net.Conn
	stderr tail
	done   chan struct{} // closed when it has ended

	mu     sync.Mutex
	reaped bool // its number may be another's
}

// start starts a QEMU with its two connections, and greets it. ctx bounds the
// greeting, and the caller must call stop.
func start(ctx context.Context, path string, args []string) (_ *process, err error) {
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	control, theirControl, err := Pair()
	if err != nil {
		return nil, err
	}
	defer theirControl.Close()
	agent, theirAgent, err := Pair()
	if err != nil {
		control.Close()
		return nil, err
	}
	defer theirAgent.Close()
	p.agent = agent
	// It looks for nothing in a home folder, and leaves nothing there.
	p.cmd.Env, p.cmd.Dir = []string{}, "/"
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirControl, theirAgent, &p.stderr
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = dieWithUs()
	if err := p.cmd.Start(); err != nil {
		control.Close()
		agent.Close()
		return nil, qemuError(path, fileKind(err), plainCause(err))
	}
	go p.wait()
	// Its own ends must be closed here for an end to be seen.
	theirControl.Close()
	theirAgent.Close()
	if p.qmp, err = qmp.New(ctx, control, nil); err != nil {
		p.stop()
		if why := p.stderr.last(); why != "" && ctx.Err() == nil {
			err = qemuError(path, caisson.ErrUnavailable, errors.New(why))
		}
		return nil, err
	}
	return p, nil
}

// wait waits for the end.
func (p *process) wait() {
	defer close(p.done)
	awaitEnd(p.cmd.Process)
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait()
}

// stop ends it, and returns when nothing of it is left.
func (p *process) stop() {
	p.mu.Lock()
	if !p.reaped {
		end(p.cmd.Process)
	}
	p.mu.Unlock()
	<-p.done
	p.agent.Close()
	if p.qmp != nil {
		p.qmp.Close()
	}
}

// A tail keeps the last of what a program says.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const maxTail = 4096

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - maxTail; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// last returns the last line that says something.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.data), []byte("\n"))
	return strings.ToValidUTF8(string(bytes.TrimSpace(lines[len(lines)-1])), "?")
}

// qemuError is an error about a QEMU program.
func qemuError(path string, kind caisson.Kind, err error) error {
	return &caisson.Error{Op: caisson.OpProbe, Item: path, Kind: kind, Err: err}
}
