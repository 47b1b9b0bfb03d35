package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
)

// Bounds of an operator's program.
const (
	// The pause between two starts of a program that does not last.
	leastPause = time.Second
	mostPause  = 30 * time.Second
	// lasting is how long a program has to run for its end to be no failure.
	lasting   = time.Minute
	stopGrace = 5 * time.Second // from SIGTERM to SIGKILL
	pipeGrace = time.Second     // for what has left the program's group and holds its output
	// deathGrace is how long after a connection's end its program's is waited for.
	deathGrace = time.Second
	maxSaid    = 64 << 10 // bytes of a program's output that are logged
	maxLine    = 4 << 10
)

// starter has LISTEN_PID be the id of the program itself, which only what
// becomes it can know.
const starter = `export LISTEN_PID=$$; exec "$@"`

// programVariables are those of this process's environment that a program gets:
// where things are. Everything else may be a secret of whoever submits tasks.
var programVariables = [...]string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// An Opener is a handler for Policy.Proxies that has something of its own
// outside for each Server.
type Opener interface {
	http.Handler
	// Open returns what serves one Server's requests in place of the handler, and
	// a function that ends all that this has started. Logger is told what no task
	// is to know.
	Open(logger *slog.Logger) (h http.Handler, end func())
}

// A program is an operator's that serves HTTP at a socket that it inherits. It
// is started by the first request, and again by a later one if it has ended.
type program struct {
	argv   []string // argv[0] is a path
	dir    string
	logger *slog.Logger

	mu     sync.Mutex
	ended  bool
	last   *running      // nil: none was started yet
	began  time.Time     // when it was tried
	pause  time.Duration // until it is tried again
	broken error         // why nothing could be started
}

// errProgram is why a program does not answer; its text is told to tasks, and
// has nothing in it of what the program has said.
type errProgram string

func (e errProgram) Error() string { return string(e) }

// findProgram returns the path of a program, as a shell would find it.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return "", &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("%s is not there; build or install it", name)}
	}
	return "", &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
}

// dial connects to the program, which it starts if need be.
func (p *program) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	r, err := p.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, "unix", r.socket.address)
}

// wholeSeconds rounds up: nobody is told to wait for no time.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// current returns the program as it runs. One that has just ended is not
// started again for a while, lest requests keep this host busy with it.
func (p *program) current() (*running, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, net.ErrClosed
	}
	if p.last != nil && p.last.alive() {
		return p.last, nil
	}
	if wait := p.pause - time.Since(p.began); !p.began.IsZero() && wait > 0 {
		why := "its program has ended"
		if p.broken != nil {
			why = "its program can't be started"
		}
		return nil, errProgram(fmt.Sprintf("%s, and is not tried again for %v; its operator has to look", why, wholeSeconds(wait)))
	}
	p.pause = min(max(2*p.pause, leastPause), mostPause)
	if p.last != nil && p.last.lasted() >= lasting {
		p.pause = leastPause
	}
	p.began = time.Now()
	p.last, p.broken = startProgram(p.argv, p.dir, p.logger)
	if p.broken != nil {
		p.logger.Error("the program of an upstream can't be started", "program", p.argv[0], "error", p.broken)
		return nil, errProgram("its program can't be started; its operator has to look")
	}
	return p.last, nil
}

// explain returns why a request has failed: that the program has ended, if it
// has.
func (p *program) explain(err error) error {
	var known errProgram
	var netErr net.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.As(err, &netErr) && netErr.Timeout() {
		return err
	}
	p.mu.Lock()
	last := p.last
	p.mu.Unlock()
	if last == nil {
		return err
	}
	select {
	case <-last.done:
		return errProgram("its program has ended; its operator has to look")
	case <-time.After(deathGrace):
		return err
	}
}

// end ends the program for good, and waits for that.
func (p *program) end() {
	p.mu.Lock()
	p.ended = true
	last := p.last
	p.mu.Unlock()
	if last != nil {
		last.stop()
	}
}

// A running is one start of a program.
type running struct {
	socket  *ownSocket
	pid     int
	began   time.Time
	stopped chan struct{} // closed when it is to end
	once    sync.Once
	done    chan struct{} // closed when nothing of it runs
	ended   time.Time     // once done is closed
}

func (r *running) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// lasted returns how long it has run. It has ended.
func (r *running) lasted() time.Duration { return r.ended.Sub(r.began) }

// stop ends the program with all of its group, and waits for that.
func (r *running) stop() {
	r.once.Do(func() { close(r.stopped) })
	if r.alive() {
		_ = syscall.Kill(-r.pid, syscall.SIGTERM)
	}
	select {
	case <-r.done:
		return
	case <-time.After(stopGrace):
	}
	_ = syscall.Kill(-r.pid, syscall.SIGKILL)
	<-r.done
}

// startProgram starts a program. Only it holds the socket that it serves: once
// it is gone, who waits there is told so by the kernel.
func startProgram(argv []string, dir string, logger *slog.Logger) (*running, error) {
	path, err := findProgram(argv[0])
	if err != nil {
		return nil, err
	}
	socket, err := newSocket()
	if err != nil {
		return nil, fmt.Errorf("a socket for it: %w", err)
	}
	defer socket.listener.Close()
	output, input, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	defer input.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", starter, "sh", path}, argv[1:]...)...)
	cmd.Dir, cmd.Env = dir, append(programEnv(), "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	cmd.Stdout, cmd.Stderr = input, input
	cmd.ExtraFiles = []*os.File{socket.listener} // number 3
	cmd.SysProcAttr = ownGroup()
	r := &running{socket: socket, began: time.Now(), stopped: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go r.own(cmd, output, logger.With("program", path), started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, socket.Close(), output.Close())
	}
	return r, nil
}

// own starts the program and stays until nothing of it runs. The program is told
// when the thread dies that has started it, which is this goroutine's alone.
func (r *running) own(cmd *exec.Cmd, output *os.File, logger *slog.Logger, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keepDescriptors()
	err := cmd.Start()
	if err == nil {
		r.pid = cmd.Process.Pid
	}
	started <- err
	if err != nil {
		return
	}
	said := make(chan string)
	go func() { said <- logOutput(output, logger) }()
	err = cmd.Wait()
	_ = syscall.Kill(-r.pid, syscall.SIGKILL)
	_ = output.SetReadDeadline(time.Now().Add(pipeGrace))
	last := <-said
	output.Close()
	r.socket.Close()
	select {
	case <-r.stopped:
	default:
		how := "status 0"
		if err != nil {
			how = err.Error()
		}
		logger.Warn("the program of an upstream has ended", "how", how, "said", last)
	}
	r.ended = time.Now()
	close(r.done)
}

// logOutput logs what a program says, up to a bound, and returns its last line.
func logOutput(output io.Reader, logger *slog.Logger) (last string) {
	lines := bufio.NewReaderSize(output, maxLine)
	for left := maxSaid; ; {
		line, _, err := lines.ReadLine()
		if err != nil {
			return last
		}
		if last = string(line); left > 0 {
			logger.Info("the program of an upstream says", "line", last)
		}
		left -= len(line) + 1
	}
}

func programEnv() []string {
	var env []string
	for _, name := range programVariables {
		if value, ok := os.LookupEnv(name); ok && !strings.ContainsRune(value, 0) {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// An ownSocket listens where nobody but this process, and who inherits it, can
// connect.
type ownSocket struct {
	listener *os.File
	address  string // for this process
	close    func() error
}

// Close gives the address up.
func (s *ownSocket) Close() error { return s.close() }

// listenAt makes a socket at a path and returns its descriptor, which blocks as
// programs expect it to.
func listenAt(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
