package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/document"
	"github.com/caissonrun/caisson/executor"
)

// run is the command that runs a task.
type run struct {
	*command
	flags  taskFlags
	detach bool
	json   bool
	// quiet keeps what the task prints from coming out here.
	quiet bool
	// ran tells how the task has ended. Nil: as ended does.
	ran func(*caisson.Result) error
}

func (c *command) runCommand() *cobra.Command {
	r := &run{command: c}
	cmd := &cobra.Command{
		Use:   "run [flags] FILE|- | run [flags] -- CMD ARG...",
		Short: "run a task here and now",
		Long: "Run the task of a document, or a command, in a sandbox. Its output comes out\n" +
			"here while it runs, and the exit status is the task's: its own code, 128+N when\n" +
			"signal N ended it, 124 when its time was up, 137 when it was out of memory, 127\n" +
			"or 126 when the command was not found or can't be executed, and 125 when Caisson\n" +
			"could not do its part.\n\n" +
			"^C asks the task to end, a second ^C kills it, a third leaves it.\n\n" +
			"With a document, flags are put over it: single values replace the document's,\n" +
			"lists and mappings are added to. What follows -- is run as it stands, without a\n" +
			"shell.",
		Example: "  caisson run wordcount.yaml\n" +
			"  caisson run --limit memory=64m --timeout 1m -- make test\n" +
			"  caisson run --input ./alice.txt --output 'out/*=./' -- sh -c 'wc in/alice.txt > out/count'\n" +
			"  id=$(caisson run --detach -- sleep 100)",
		ValidArgsFunction: completeDocuments,
		RunE: func(cmd *cobra.Command, args []string) error {
			task, base, err := r.task(cmd, args)
			if err != nil {
				return err
			}
			return r.submit(cmd.Context(), task, base)
		},
	}
	r.flags.register(cmd.Flags(), c.lookup)
	cmd.Flags().BoolVarP(&r.detach, "detach", "d", false, "print the task's id and return")
	cmd.Flags().BoolVar(&r.json, "json", false, "print events, one JSON object a line, with the output among them")
	_ = cmd.RegisterFlagCompletionFunc("engine", c.completeEngines)
	_ = cmd.RegisterFlagCompletionFunc("network", completeNetworks)
	_ = cmd.RegisterFlagCompletionFunc("proxy", c.completeProxies)
	return cmd
}

// lookup returns a variable of the caller's.
func (c *command) lookup(name string) (string, bool) {
	value, ok := c.env[name]
	return value, ok
}

// task returns the task that the command line describes, and the folder that
// its relative paths start from.
func (r *run) task(cmd *cobra.Command, args []string) (*caisson.Task, string, error) {
	dash := cmd.ArgsLenAtDash()
	alone := len(args) == 0 && r.flags.image != "" // the image says what to run
	if !alone && (dash < 0 && len(args) != 1 || dash > 0 || dash == 0 && len(args) == 0) {
		return nil, "", usageError(cmd, fmt.Errorf("want one document, a command after --, or an image that says what to run"))
	}
	task, base := &caisson.Task{}, "."
	if !alone && dash != 0 {
		var err error
		if task, err = readDocument(args[0], r.caller.Stdin); err != nil {
			return nil, "", err
		}
		if args[0] != "-" {
			base = filepath.Dir(args[0])
		}
	} else {
		task.Cmd = args
	}
	if err := r.flags.apply(task); err != nil {
		return nil, "", err
	}
	if err := document.Check(task); err != nil {
		return nil, "", err
	}
	base, err := filepath.Abs(base)
	return task, base, err
}

// readDocument reads the document name; "-" is stdin.
func readDocument(name string, stdin io.Reader) (*caisson.Task, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, documentError(name, err)
		}
		defer f.Close()
		in = f
	}
	// One byte over the limit is enough for Parse to refuse it.
	data, err := io.ReadAll(io.LimitReader(in, document.MaxSize+1))
	if err != nil {
		return nil, documentError(name, err)
	}
	return document.Parse(name, data)
}

// documentError says in few words why a document can't be read.
func documentError(name string, err error) error {
	kind := caisson.ErrInvalid
	switch {
	case os.IsNotExist(err):
		kind, err = caisson.ErrNotFound, fmt.Errorf("no such file; to run a command, put -- before it")
	case os.IsPermission(err):
		kind, err = caisson.ErrDenied, fmt.Errorf("you may not read it")
	}
	return &caisson.Error{Op: "document", Item: name, Kind: kind, Err: err}
}

// submit makes the task durable and sees it to its end, or leaves that to an
// attendant.
func (r *run) submit(ctx context.Context, task *caisson.Task, base string) error {
	secrets, err := readSecrets(task, base, r.lookup)
	if err != nil {
		return err
	}
	if !r.detach && isTerminal(file(r.caller.Stderr)) {
		r.progress.w, r.progress.inputs = r.caller.Stderr, task.Inputs
	}
	host, err := r.open(ctx)
	if err != nil {
		return err
	}
	sub := &executor.Submission{BaseDir: base, Secrets: secrets, Detached: r.detach, Trusted: true}
	if r.detach {
		return r.submitDetached(ctx, host, task, sub)
	}
	return r.foreground(ctx, host, task, sub)
}

func (r *run) submitDetached(ctx context.Context, host *Host, task *caisson.Task, sub *executor.Submission) error {
	ctx, release := untilSignal(ctx)
	defer release()
	id, err := host.Executor.Submit(ctx, task, sub)
	if err != nil {
		return err
	}
	if !r.json {
		_, err = fmt.Fprintln(r.caller.Stdout, id)
		return err
	}
	events := &eventPrinter{w: r.caller.Stdout}
	return host.Executor.Events(ctx, id, false, events.print)
}
