//go:build unix

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// A Process is a program in the guest. Its methods may be called from any goroutine;
// each of its streams is for one at a time.
type Process struct {
	// Stdin takes the program's input; closing it ends that, and on a terminal sends ^D.
	Stdin io.WriteCloser
	// Stdout and Stderr are its output, up to the end of whoever holds it. Who does not
	// read stops this program only. On a terminal all is in Stdout.
	Stdout, Stderr io.ReadCloser

	client *Client
	call   *wire.Call
	id     uint64
	pid    int

	done chan struct{} // closed when exit and err are set
	exit wire.Exited
	err  error
	once sync.Once
}

// Spawn starts a program as Setup says. Ctx bounds the starting. The caller must
// Close what it gets.
//
// Errors: *isolate.ExecError if the program can't be executed.
func (c *Client) Spawn(ctx context.Context, p *Program) (*Process, error) {
	call, err := c.mux.Prepare(wire.OpSpawn, p)
	if err != nil {
		return nil, c.sorted(caisson.OpStart, err)
	}
	return c.begin(ctx, call)
}

// Attach goes on with a program that was started with Program.Keep by an earlier
// session, or one whose Process was closed. Stdout and stderr are how many bytes of
// its output are had already; Running says where it can go on.
//
// Errors: ErrEnded if there is no such program.
func (c *Client) Attach(ctx context.Context, id uint64, stdout, stderr int64) (*Process, error) {
	call, err := c.mux.Prepare(wire.OpAttach, &wire.Attach{ID: id, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return nil, c.sorted(caisson.OpRecover, err)
	}
	call.Continue(1, stdout)
	call.Continue(2, stderr)
	return c.begin(ctx, call)
}

// begin makes the call and waits until the program is known.
func (c *Client) begin(ctx context.Context, prepared *wire.Prepared) (*Process, error) {
	call, err := prepared.Make(ctx)
	if err != nil {
		return nil, c.sorted(caisson.OpStart, err)
	}
	p := &Process{
		Stdin: call.Out[0], Stdout: &output{call.In[1]}, Stderr: &output{call.In[2]},
		client: c, call: call, done: make(chan struct{}),
	}
	body, last, err := call.Next(ctx)
	if err != nil {
		call.Cancel()
		return nil, c.sorted(caisson.OpStart, err)
	}
	var started wire.Started
	if err := json.Unmarshal(body, &started); err != nil || last || started.PID < 0 {
		return nil, c.broken(caisson.OpStart, errors.New("it does not say what it has started"))
	}
	p.id, p.pid = started.ID, started.PID
	if !c.mux.Go(p.follow) {
		return nil, c.sorted(caisson.OpStart, c.mux.Why())
	}
	return p, nil
}

// follow waits for the program's end.
func (p *Process) follow() {
	defer close(p.done)
	ctx := context.Background()
	body, last, err := p.call.Next(ctx)
	switch {
	case err != nil:
		p.err = p.client.sorted(caisson.OpWait, err)
		select {
		case <-p.call.Over():
			if p.client.Err() == nil {
				p.err = &caisson.Error{Op: caisson.OpWait, Kind: caisson.ErrEnded, Err: errors.New("the program was let go")}
			}
		default:
		}
	case last || json.Unmarshal(body, &p.exit) != nil || p.exit.Code&^0xff != 0 || p.exit.Signal < 0 || p.exit.Signal > 64:
		p.exit = wire.Exited{}
		p.err = p.client.broken(caisson.OpWait, errors.New("it does not say how the program has ended"))
	}
}

// ID is what the agent knows the program by: see Attach.
func (p *Process) ID() uint64 { return p.id }

// PID is the program's process id in the guest. It is for people.
func (p *Process) PID() int { return p.pid }

// Done is closed when the program has ended, or it can't be known any more how it
// does.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait blocks until the program has ended and returns its exit code, or the signal
// that ended it. Output may follow. Any number of callers get the same answer.
//
// Errors: ErrUnavailable if the session has ended first, so that the outcome is not
// known; ErrEnded if Close was called first; the context's.
func (p *Process) Wait(ctx context.Context) (code, signal int, err error) {
	select {
	case <-p.done:
		return p.exit.Code, p.exit.Signal, p.err
	default:
	}
	select {
	case <-p.done:
		return p.exit.Code, p.exit.Signal, p.err
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// Signal sends a signal to the program. Errors: ErrEnded after the end.
func (p *Process) Signal(ctx context.Context, signal int) error {
	return p.client.ask(ctx, caisson.OpSignal, wire.OpSignal, &wire.Target{ID: p.id, Signal: signal}, nil)
}

// Resize changes the terminal's size. Errors: ErrUnsupported without a terminal;
// ErrEnded after the end.
func (p *Process) Resize(ctx context.Context, cols, rows uint16) error {
	return p.client.ask(ctx, caisson.OpExec, wire.OpResize, &wire.Target{ID: p.id, Cols: cols, Rows: rows}, nil)
}

// Flush returns how long the program's output is, once all that it had printed when
// this was called is in its streams: whoever has read as much has it, whoever else
// still holds the output open. It waits for who reads.
//
// Errors: ErrEnded if the program is over with all its output, so that its streams
// end.
func (p *Process) Flush(ctx context.Context) (stdout, stderr int64, err error) {
	var said wire.Flushed
	if err := p.client.ask(ctx, caisson.OpWait, wire.OpFlush, &wire.Target{ID: p.id}, &said); err != nil {
		return 0, 0, err
	}
	if said.Stdout < 0 || said.Stderr < 0 {
		return 0, 0, p.client.broken(caisson.OpWait, errors.New("less than nothing was printed"))
	}
	return said.Stdout, said.Stderr, nil
}

// Close lets go of the program: the streams end, and one that is not kept is killed,
// with its group, also where only others of the group still hold its output. What was
// left behind by a program that has ended, with all its output, is not touched. It
// may be called again.
func (p *Process) Close() error {
	p.once.Do(p.call.Cancel)
	return nil
}

// Programs lists what the agent knows: what runs, and what was kept and is not
// forgotten.
func (c *Client) Programs(ctx context.Context) (list []Running, err error) {
	return list, c.ask(ctx, caisson.OpRecover, wire.OpPrograms, nil, &list)
}

// Forget ends a program that was kept, and what is known of it.
//
// Errors: ErrEnded if there is no such program.
func (c *Client) Forget(ctx context.Context, id uint64) error {
	return c.ask(ctx, caisson.OpDestroy, wire.OpForget, &wire.Target{ID: id}, nil)
}

// An output is an Inlet whose cut is told from its end.
type output struct{ *wire.Inlet }

// Read implements io.Reader.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.Inlet.Read(p)
	if errors.Is(err, wire.ErrEnded) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
