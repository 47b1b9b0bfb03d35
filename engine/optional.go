package engine

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"time"

	"github.com/caissonrun/caisson"
)

// An Execer is a Sandbox in which more programs can be run beside its main
// one: Features.Exec.
type Execer interface {
	// Exec starts a program in the live sandbox: same user, groups, limits,
	// namespaces, environment and folders as the main one. It neither keeps
	// the sandbox alive nor outlives the main program.
	//
	// With Spec.Keep it does so, too, once the main program has ended, until the
	// time is over: it finds everything as that has left it, what else of it was
	// running halted, and ends with the sandbox. While the end of the main program
	// is made durable it waits.
	//
	// ctx bounds the starting only. The caller must Close the session.
	//
	// Errors: ErrEnded if the main program was never started, or has ended and
	// the sandbox is not kept, or no longer;
	// ErrAborted if the sandbox is gone; ErrUnsupported if a terminal is asked
	// for and Features.Terminal is not set. A program that is not found or not
	// executable is an Exit with code 127 or 126.
	Exec(ctx context.Context, spec *ExecSpec) (Session, error)
}

// An ExecSpec says what Exec starts.
type ExecSpec struct {
	Args    []string          `json:"args,omitempty"` // empty: the default shell
	Env     map[string]string `json:"env,omitempty"`  // added to the main program's
	Workdir string            `json:"workdir,omitempty"`
	// Terminal asks for a pseudo-terminal of Size as stdin, stdout and stderr.
	Terminal bool `json:"terminal,omitempty"`
	Size     Size `json:"size,omitzero"`
	// Timeout kills the program when it is over. Zero: none.
	Timeout caisson.Duration `json:"timeout,omitempty"`
}

// A Size is that of a terminal, in characters. Zero: 80 by 24.
type Size struct {
	Cols uint16 `json:"cols"`
	Rows uint16 `json:"rows"`
}

// A Session is a program that Exec has started.
type Session interface {
	// Stdin returns where to write the program's input. Closing it ends the
	// input; with a terminal it sends an end of file (^D) and nothing else.
	Stdin() io.WriteCloser
	// Stdout and Stderr return the program's output. A reader that does not
	// read stops this program only. With a terminal everything is in Stdout.
	Stdout() io.Reader
	Stderr() io.Reader
	// Resize changes the terminal's size. Errors: ErrUnsupported without a
	// terminal; ErrEnded after the end.
	Resize(ctx context.Context, size Size) error
	// Signal sends a signal to the program. Errors: ErrEnded after the end.
	Signal(ctx context.Context, signal int) error
	// Wait returns how the program ended, as Process.Wait does. Reason is
	// ReasonAborted where the main program or the sandbox ended first, with the
	// message saying which.
	Wait(ctx context.Context) (caisson.Exit, error)
	// Close hangs up: whatever of the program still runs is killed, and the
	// streams end. It may be called again.
	Close() error
}

// A Filer is a Sandbox whose files can be read, and written before the start:
// Features.Files. It works while the program runs and after it has ended,
// until Destroy. No path, whatever the task made of it, leads out of the
// sandbox: links are followed inside of it only.
type Filer interface {
	// FS returns the files of the sandbox. Names are as in io/fs: relative to
	// the sandbox's root, with slashes. Opening something that is neither a
	// regular file nor a folder is an error at once. The FS ends with the
	// sandbox. Errors: ErrAborted if the sandbox is gone.
	FS(ctx context.Context) (FS, error)
	// Tar writes the file or folder name as a tar stream; names inside start
	// with the last element of name. Devices, sockets and FIFOs are left out.
	// Errors: ErrNotFound; ErrAborted.
	Tar(ctx context.Context, name string, w io.Writer) error
	// Put unpacks a tar stream below the folder name, as the program's user.
	// Entries that lead out of the folder, devices and links to outside are
	// ErrInvalid, and what came before them stays.
	Put(ctx context.Context, name string, r io.Reader) error
}

// An FS is what Filer.FS returns.
type FS interface {
	fs.ReadDirFS
	fs.StatFS
	fs.ReadLinkFS
	io.Closer
}

// A StatsReader is a Sandbox that tells what it uses: Features.Stats.
type StatsReader interface {
	// Stats returns what the sandbox uses now. After the program's end, and that
	// of Spec.Keep, it returns the last figures. Errors: ErrAborted.
	Stats(ctx context.Context) (Stats, error)
}

// Stats is what a sandbox uses at one time. What can't be measured is -1.
type Stats struct {
	Time       time.Time        `json:"time"`
	CPU        caisson.Duration `json:"cpu"`         // user and system, since the start
	Memory     caisson.Bytes    `json:"memory"`      // now
	PeakMemory caisson.Bytes    `json:"peak_memory"` // since the start
	PIDs       int64            `json:"pids"`        // processes and threads now
	OOMKills   int64            `json:"oom_kills"`   // processes killed by the memory limit
	Throttled  caisson.Duration `json:"throttled"`   // held back by the cpu limit
}

// A Pauser is a Sandbox that can be halted: Features.Pause. The time limit
// runs on while it is.
type Pauser interface {
	// Pause halts every process in the sandbox. Pausing twice is nil.
	// Errors: ErrEnded; ErrAborted.
	Pause(ctx context.Context) error
	// Resume undoes Pause.
	Resume(ctx context.Context) error
}

// A Snapshotter is a Sandbox whose whole state can be kept and gone on from, more
// than once: Features.Snapshot.
type Snapshotter interface {
	// Snapshot writes what the sandbox is at one time to dir, an empty folder of the
	// caller's on this host: its memory, and the disks that it writes to. The sandbox
	// stands still meanwhile and then runs on; one that is paused stays so. A sandbox
	// goes on from there by Spec.Snapshot. The state is as trusted as what ran in it,
	// and holds what that has in memory: secrets, too.
	//
	// Errors: ErrEnded if no program runs; ErrUnsupported if the sandbox has
	// something that can't be copied, such as folders of the host (Spec.Forkable);
	// ErrAborted. After an error dir is of no use.
	Snapshot(ctx context.Context, dir string) error
}

// An Originator is a Sandbox that tells what it began with. It belongs to no field
// of Features.
type Originator interface {
	// Origin returns what the sandbox began with. Errors: ErrAborted.
	Origin(ctx context.Context) (Origin, error)
}

// An Origin is what a sandbox began with.
type Origin struct {
	// From says that it went on from a saved state, in place of beginning anew.
	From bool `json:"from,omitempty"`
	// Saved says that its state was saved for others like it.
	Saved bool `json:"saved,omitempty"`
	// Why says why it did not go on from a state that there is, or was not saved.
	Why string `json:"why,omitempty"`
}

// A Saver is an Engine that keeps states of sandboxes in which nothing of a task has
// run, so that others like them begin there. It belongs to no field of Features.
type Saver interface {
	// SavedStates lists them, the one that was used last first.
	SavedStates(ctx context.Context) ([]SavedState, error)
	// RemoveState removes one. Sandboxes that went on from it are not disturbed.
	// Errors: ErrNotFound; ErrInvalid if that can be no key.
	RemoveState(ctx context.Context, key string) error
}

// A SavedState is one that a Saver has.
type SavedState struct {
	Key    string        `json:"key"`
	Engine string        `json:"engine"`
	Name   string        `json:"name"` // what it is of
	Size   caisson.Bytes `json:"size"`
	Made   time.Time     `json:"made"`
	Used   time.Time     `json:"used"`
	// By is what it was made by, such as a version of QEMU.
	By string `json:"by"`
}

// A Displayer is a Sandbox with screens: Features.Displays. A sandbox of an
// engine that does not declare them may have the methods, too, and answer
// ErrUnsupported.
//
// Screens can be looked at from Start until the main program has ended, while
// the sandbox is paused, and with Spec.Keep until that is over. What a task's own
// VNC server shows it must say itself: a halted one takes connections and says
// nothing.
type Displayer interface {
	// Displays lists the screens, in the order of Spec.Displays. Nobody who looks
	// at one notices. Without any the list is empty.
	//
	// Errors: ErrEnded; ErrAborted.
	Displays(ctx context.Context) ([]Display, error)
	// OpenDisplay connects to a screen by name: a stream of RFB (RFC 6143), which
	// ends with the sandbox. Each call is a viewer of its own, and neither what it
	// sends nor that it does not read disturbs the sandbox. Whoever else is at a
	// VNC server of the task's depends on that server.
	//
	// ctx bounds the call only. The caller closes the stream.
	//
	// Errors: ErrNotFound if there is no such display; ErrUnavailable if nothing
	// listens there yet; ErrExhausted if too many look; ErrEnded; ErrAborted.
	OpenDisplay(ctx context.Context, name string) (io.ReadWriteCloser, error)
}

// A Display is a screen of a sandbox. Sizes are pixels, 0 where unknown: that of
// a VNC server of the task's is what the task says, because some servers end when
// somebody has looked.
type Display struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Width       int    `json:"width"`
	Height      int    `json:"height"`
}

// A Preparer is an Engine that can do slow work ahead of Create, such as
// pulling an image while inputs are staged: Features.Prepare.
type Preparer interface {
	// Prepare makes a later Create of spec quicker. It leaves nothing behind
	// that Create needs in order to work, and can be cancelled at any time.
	Prepare(ctx context.Context, spec *Spec) error
}

// A Pruner is an Engine that brings images itself and keeps them: one with
// Features.Image may be one. It belongs to no field of Features.
type Pruner interface {
	// Prune removes the images that were brought for tasks of this installation
	// and that nobody has used for at least age, unless one uses them now, and
	// returns their names.
	Prune(ctx context.Context, age time.Duration) (removed []string, err error)
}

// An EventSource is a Sandbox that tells what happens in it: Features.Events.
type EventSource interface {
	// Events calls f for each event, in order, until ctx or the sandbox ends.
	Events(ctx context.Context, f func(caisson.Event)) error
}

// A Looker is an Engine that can tell at once, from what lies on disk, whether
// a program still runs: every command asks that of every running task. It
// belongs to no field of Features, because it only saves time.
type Looker interface {
	// Running reports whether the program of the sandbox whose Spec.Dir is dir
	// was started and has not ended, so that whoever keeps it will see its end
	// and start Spec.OnExit. It never waits.
	Running(dir string) (bool, error)
}

// A Judge is an Engine whose programs are the operator's own: not all that they
// end in is the task's failure. It belongs to no field of Features.
type Judge interface {
	// Judge returns nil if exit, which a Wait of this engine's has returned, is
	// the task's, and otherwise what went wrong that the task is not to blame
	// for. It looks at nothing but exit.
	//
	// Errors: ErrInternal if the program could not do its part; ErrUnavailable
	// if the engine must be probed before it gets another task.
	Judge(exit caisson.Exit) error
}

// An ImageChooser is an Engine whose options say how images are to be had and
// run: what the executor does before there is a spec. It belongs to no field of
// Features.
type ImageChooser interface {
	// ImageOptions reads a task's options. Errors: ErrInvalid.
	ImageOptions(options json.RawMessage) (ImageOptions, error)
}

// ImageOptions is what a task's options say about its main program's image.
type ImageOptions struct {
	TrustPrefix     string   // see image.Request
	InsecureOptions []string // the same; what concerns the run is the engine's
	NoOverlay       bool     // the sandbox gets a copy of its own
	// Entrypoint and Cmd take the place of the image's, by the same rules as
	// the task's, which must then have none.
	Entrypoint, Cmd []string
}

// A NetworkLocator is a Sandbox that tells where on this host its own network
// is: Features.Networks.Inside. A sandbox without it may have the method, too,
// and answer ErrUnsupported.
type NetworkLocator interface {
	// NetworkNamespace returns a path of the network namespace, for setns(2),
	// before Start and until the program ends.
	//
	// Errors: ErrUnsupported if the sandbox has no network of its own, or nobody
	// outside can enter it; ErrEnded, ErrAborted.
	NetworkNamespace(ctx context.Context) (string, error)
}

// A Locator is a Process that runs on this host and tells where, for people
// and their tools. It belongs to no field of Features either.
type Locator interface {
	// PID returns the program's process id on the host; 0 where it is not
	// known. Errors: ErrEnded if the program has ended; ErrAborted if the
	// sandbox is gone.
	PID(ctx context.Context) (int, error)
}
