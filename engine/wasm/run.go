//go:build unix

package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	wazerosys "github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/isolate"
)

// trapSignal is how a module is said to end that does what it can't: it has
// the exit status that it has with other runtimes, 134.
const trapSignal = int(syscall.SIGABRT)

// A run is the module while it runs.
type run struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
	once   sync.Once
	signal int // that ended it, before cancel; 0: none
}

// stop ends the module, as a signal would. The first one decides.
func (r *run) stop(signal int) {
	r.once.Do(func() {
		r.signal = signal
		r.cancel()
	})
}

// send is what a signal does to a module, which can't catch any.
func (r *run) send(signal int) error {
	switch syscall.Signal(signal) {
	case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH:
		return nil
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		return unsupported("a module can't be halted")
	}
	r.stop(signal)
	return nil
}

// start runs the module on a thread of its own, which reaches files as the
// module's user. The caller holds mu.
func (b *box) start(p *isolate.Program, files *tree, stdout, stderr *os.File) (*run, *isolate.Proc, error) {
	out, err := duplicate(stdout)
	if err != nil {
		return nil, nil, err
	}
	errs, err := duplicate(stderr)
	if err != nil {
		out.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{cancel: cancel, done: make(chan struct{})}
	proc, end := isolate.NewProc(r.send)
	config := b.config(ctx, p, files, out, errs)
	go func() {
		// Never unlocked: the thread ends with this, and nothing else runs as
		// that user.
		runtime.LockOSThread()
		err := b.share.join()
		if err == nil {
			err = become(b.spec.UID, b.spec.GID)
		}
		if err == nil {
			err = b.instantiate(ctx, config)
		}
		code, signal := r.outcome(err, errs)
		cancel()
		out.Close()
		errs.Close()
		close(r.done)
		end(code, signal)
	}()
	return r, proc, nil
}

// config is what the module is handed.
func (b *box) config(ctx context.Context, p *isolate.Program, files *tree, out, errs io.Writer) wazero.ModuleConfig {
	config := wazero.NewModuleConfig().WithName("main").WithArgs(p.Args...).
		// The writers are wrapped, so that wazero does not look behind them.
		WithStdout(struct{ io.Writer }{out}).WithStderr(struct{ io.Writer }{errs}).
		WithFSConfig(files.preopens()).
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).
		WithNanosleep(func(nanos int64) {
			timer := time.NewTimer(time.Duration(nanos))
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		})
	for _, v := range p.Env {
		name, value, _ := strings.Cut(v, "=")
		config = config.WithEnv(name, value)
	}
	return config
}

// instantiate runs the module to its end.
func (b *box) instantiate(ctx context.Context, config wazero.ModuleConfig) (err error) {
	defer func() {
		// wazero panics where a memory can't be had that a module begins with.
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	ctx = experimental.WithMemoryAllocator(ctx, b.memory)
	module, err := b.runtime.InstantiateModule(ctx, b.compiled, config)
	if module != nil {
		err = errors.Join(err, module.Close(ctx))
	}
	return err
}

// outcome reads how the module ended. Why it was ended by the runtime stands in
// its own log.
func (r *run) outcome(err error, stderr io.Writer) (code, signal int) {
	var exit *wazerosys.ExitError
	r.once.Do(func() {}) // from here on no signal ends it
	switch {
	case r.signal != 0:
		return 0, r.signal
	case err == nil:
		return 0, 0
	case errors.As(err, &exit):
		return int(exit.ExitCode() & 0xff), 0
	}
	why, _, _ := strings.Cut(err.Error(), "\n")
	fmt.Fprintf(stderr, "caisson: module: %s\n", why)
	return 0, trapSignal
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// cpu is the time that a process has used.
func cpu(u *syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
