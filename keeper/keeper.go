// Package keeper is the small process that owns one sandbox's running program,
// its log and its exit, and outlives everything else; and the client with
// which engines talk to it.
package keeper

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// A Spec says what a keeper keeps. It reaches the keeper through a pipe and
// is never on disk, because it holds secrets.
type Spec struct {
	Version  int           `json:"version"`
	ID       string        `json:"id"`
	Dir      string        `json:"dir"`    // keeper.json and exit.json go here
	Socket   string        `json:"socket"` // path of the unix socket; its folder is mode 0700
	Log      string        `json:"log"`
	LogLimit caisson.Bytes `json:"log_limit,omitempty"`
	Redact   [][]byte      `json:"redact,omitempty"`

	Box     *isolate.Spec   `json:"box"`
	Program isolate.Program `json:"program"`

	Timeout    caisson.Duration `json:"timeout,omitempty"`
	StopSignal int              `json:"stop_signal,omitempty"`
	Grace      caisson.Duration `json:"grace,omitempty"`
	Linger     caisson.Duration `json:"linger,omitempty"`
	// OnExit is started once after the exit is durable, if no connection that
	// called Own is open then, or as soon as the last such one closes without
	// Destroy.
	OnExit    []string `json:"on_exit,omitempty"`
	OnExitEnv []string `json:"on_exit_env,omitempty"`
}

// Command is how a keeper is started: the argv of the small program, or of the
// main binary's hidden subcommand.
type Command []string

// Launch starts a keeper in its own session and returns when its sandbox is
// in place. On error nothing is left.
func Launch(ctx context.Context, command Command, spec *Spec) (*Client, error) { panic("todo") }

// Dial connects to the keeper of the sandbox whose Spec.Dir is dir.
//
// Errors: ErrNotFound if no keeper lives.
func Dial(ctx context.Context, dir string) (*Client, error) { panic("todo") }

// ReadExit returns the durable exit in dir. Errors: ErrNotFound.
func ReadExit(dir string) (caisson.Exit, error) { panic("todo") }

// A Client talks to one keeper. It may be used by several goroutines.
type Client struct{}

// Status is what a keeper says of itself.
type Status struct {
	PID     int           `json:"pid"`      // the keeper's
	Started bool          `json:"started"`  // the program was started
	MainPID int           `json:"main_pid"` // on the host, 0 where not known
	Exit    *caisson.Exit `json:"exit,omitempty"`
	Execs   int           `json:"execs"` // live exec sessions
	Paused  bool          `json:"paused"`
}

func (c *Client) Status(ctx context.Context) (Status, error) { panic("todo") }

// Own says that the caller sees to what follows the exit, as long as its
// connection is open.
func (c *Client) Own(ctx context.Context) error { panic("todo") }

// Start starts the program. Errors: ErrExists if it was started before.
func (c *Client) Start(ctx context.Context) error { panic("todo") }

// Wait returns the exit once it is durable.
func (c *Client) Wait(ctx context.Context) (caisson.Exit, error) { panic("todo") }
func (c *Client) Signal(ctx context.Context, signal int) error   { panic("todo") }

// Stop has the keeper stop the program by reason, signal and grace.
func (c *Client) Stop(ctx context.Context, reason caisson.Reason, signal int, grace time.Duration) error {
	panic("todo")
}
func (c *Client) Pause(ctx context.Context) error                  { panic("todo") }
func (c *Client) Resume(ctx context.Context) error                 { panic("todo") }
func (c *Client) Stats(ctx context.Context) (isolate.Stats, error) { panic("todo") }

// Root returns the sandbox's root folder as an O_PATH descriptor.
func (c *Client) Root(ctx context.Context) (*os.File, error) { panic("todo") }

// Exec starts another program in the sandbox.
func (c *Client) Exec(ctx context.Context, p *isolate.Program, timeout time.Duration) (*Exec, error) {
	panic("todo")
}

// Destroy ends the program, the sandbox and the keeper.
func (c *Client) Destroy(ctx context.Context) error { panic("todo") }

// Close closes the connections; the keeper lives on.
func (c *Client) Close() error { panic("todo") }

// An Exec is a program started by Client.Exec; it is an engine.Session but for
// the type of Resize's size.
type Exec struct{}

func (e *Exec) Stdin() io.WriteCloser                               { panic("todo") }
func (e *Exec) Stdout() io.Reader                                   { panic("todo") }
func (e *Exec) Stderr() io.Reader                                   { panic("todo") }
func (e *Exec) Resize(ctx context.Context, cols, rows uint16) error { panic("todo") }
func (e *Exec) Signal(ctx context.Context, signal int) error        { panic("todo") }
func (e *Exec) Wait(ctx context.Context) (caisson.Exit, error)      { panic("todo") }
func (e *Exec) Close() error                                        { panic("todo") }
