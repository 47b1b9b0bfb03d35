package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// execution is the command that runs another program in a sandbox.
type execution struct {
	*command
	interactive, terminal bool
	env                   []string
	spec                  engine.ExecSpec
}

func (c *command) execCommand() *cobra.Command {
	e := &execution{command: c}
	cmd := &cobra.Command{
		Use:   "exec [-it] [flags] ID [-- CMD ARG...]",
		Short: "run another program beside a task's own",
		Long: "Run another program in the sandbox of a task that runs, or of one that has ended\n" +
			"and is kept (--keep): there everything is as the task has left it, and what of it\n" +
			"was running is halted. Without a command it is the sandbox's shell. With -t it\n" +
			"gets a terminal, with -i its input from here; -it makes it this terminal's: size,\n" +
			"^C and all. The exit status is the program's, as for run. The program ends with\n" +
			"the task's own, or with the time that the sandbox is kept for.",
		Example:           "  caisson exec -it 01h9 -- sh\n  caisson exec -i 01h9 -- tar -x <files.tar",
		ValidArgsFunction: c.completeOne(enterable),
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 {
				dash = len(args)
			}
			if dash != 1 {
				return usageError(cmd, fmt.Errorf("want one ID, and a command after --"))
			}
			env, err := parseEnv(e.env, c.lookup)
			if err != nil {
				return err
			}
			e.spec.Args, e.spec.Env, e.spec.Terminal = args[1:], env, e.terminal
			return e.run(cmd.Context(), args[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&e.interactive, "interactive", "i", false, "give it what comes in on stdin")
	flags.BoolVarP(&e.terminal, "tty", "t", false, "give it a terminal")
	flags.StringArrayVarP(&e.env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME to take the caller's")
	flags.StringVarP(&e.spec.Workdir, "workdir", "w", "", "start it in this `folder`")
	durationVar(flags, &e.spec.Timeout, "timeout", "kill it after this time")
	return cmd
}

// run starts the program and is its terminal, or its pipes, until it has ended.
func (e *execution) run(ctx context.Context, arg string) error {
	host, err := e.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	stdin := file(e.caller.Stdin)
	if e.terminal {
		e.spec.Size = e.size()
		e.takeTERM()
	}
	session, err := host.Executor.Exec(ctx, id, &e.spec)
	if err != nil {
		return err
	}
	defer session.Close()

	// Raw mode comes last, so that whatever went wrong before was printed on a
	// terminal in order; the deferred restore runs before any later message.
	tty := &rawTerminal{}
	if e.raw() {
		tty = newRawTerminal(stdin)
		defer tty.restore()
		if err := tty.raw(); err != nil {
			return fmt.Errorf("exec: terminal: %w", err)
		}
	}
	exit, err := e.converse(ctx, session, tty)
	tty.restore()
	if err != nil {
		return err
	}
	if text := explainExit(exit); text != "" {
		fmt.Fprintf(e.caller.Stderr, "caisson: exec: %s\n", oneLine(text))
	}
	return exitStatus(exit.Status())
}

// raw reports whether every key is to reach the program as it is.
func (e *execution) raw() bool {
	return e.terminal && e.interactive && isTerminal(file(e.caller.Stdin))
}

// size returns that of the terminal at hand, if there is one.
func (e *execution) size() engine.Size {
	for _, stream := range []any{e.caller.Stdin, e.caller.Stdout, e.caller.Stderr} {
		if f := file(stream); isTerminal(f) {
			return sizeOf(f)
		}
	}
	return engine.Size{}
}

// takeTERM tells the program what terminal this is, unless that was set.
func (e *execution) takeTERM() {
	if _, set := e.spec.Env["TERM"]; set {
		return
	}
	if term, ok := e.lookup("TERM"); ok {
		e.spec.Env["TERM"] = term
	}
}

// converse copies all streams and passes signals on until the program has
// ended and its output is out, or a signal ends this program.
func (e *execution) converse(ctx context.Context, session engine.Session, tty *rawTerminal) (caisson.Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 16)
	notifyEnd(signals)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(signals)

	var owned sync.WaitGroup
	spawn := func(f func()) {
		owned.Go(func() {
			defer tty.restoreOnPanic()
			f()
		})
	}
	defer owned.Wait()
	// Closing ends the streams, and with them the copies; it is deferred last
	// so that it comes first.
	defer session.Close()
	defer cancel(nil)

	spawn(func() { e.onSignals(ctx, session, tty, signals, cancel) })
	// Nothing can interrupt a read of this program's own stdin, so this copy
	// is not waited for; it ends with the process.
	go func() {
		defer tty.restoreOnPanic()
		e.copyInput(session)
	}()
	var copies sync.WaitGroup
	output := func(w io.Writer, r io.Reader) {
		copies.Add(1)
		spawn(func() {
			defer copies.Done()
			if _, err := io.Copy(w, r); errors.Is(err, syscall.EPIPE) {
				cancel(err)
			}
		})
	}
	output(e.caller.Stdout, session.Stdout())
	output(e.caller.Stderr, session.Stderr())

	exit, err := session.Wait(ctx)
	if err != nil {
		return exit, orInterrupted(ctx, err)
	}
	copies.Wait()
	return exit, nil
}

func (e *execution) copyInput(session engine.Session) {
	stdin := session.Stdin()
	defer stdin.Close()
	if e.interactive {
		// An error is the program's end or that of the input; both show
		// elsewhere.
		_, _ = io.Copy(stdin, e.caller.Stdin)
	}
}

// onSignals passes this program's signals on. With a terminal in raw mode the
// keys do not make any, so one that ends programs is meant for this program.
func (e *execution) onSignals(ctx context.Context, session engine.Session, tty *rawTerminal, signals <-chan os.Signal, cancel func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case received := <-signals:
			sig := received.(syscall.Signal)
			switch {
			case sig == syscall.SIGPIPE:
			case sig == syscall.SIGWINCH:
				e.resize(ctx, session)
			case sig == syscall.SIGCONT:
				if e.raw() {
					_ = tty.raw()
				}
				e.resize(ctx, session)
			case e.raw():
				cancel(interrupted{sig})
			default:
				_ = session.Signal(ctx, int(sig))
			}
		}
	}
}

// resize makes the program's terminal as large as this one. It fails only
// where the program has ended, which shows elsewhere.
func (e *execution) resize(ctx context.Context, session engine.Session) {
	if size := e.size(); e.terminal && size.Cols > 0 && size.Rows > 0 {
		_ = session.Resize(ctx, size)
	}
}
