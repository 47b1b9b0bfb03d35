package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/document"
	"github.com/caissonrun/caisson/executor"
)

func (c *command) vmSnapshotCommand() *cobra.Command {
	var flags taskFlags
	var file string
	cmd := &cobra.Command{
		Use:   "snapshot [--engine E] [--limit WHAT=AMOUNT] IMAGE | --file FILE",
		Short: "save a machine's state once it has booted, for tasks to begin there",
		Long: "Boot a machine of an image, as a task with these limits would have it, save its\n" +
			"state before anything runs in it, and end it. Tasks with the same image, limits and\n" +
			"kind of machine then go on from there in place of booting: each with a disk,\n" +
			"randomness, a clock and a name of its own. FILE is a task's document, whose machine\n" +
			"is meant. A state is of no use any more once QEMU, the kernel, the image or the\n" +
			"agent is another; the task then boots, and its events say why.",
		Args: someOf(0, 1, "IMAGE, or --file FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			task, base, err := snapshotTask(cmd, args, file, c.caller.Stdin)
			if err == nil {
				err = flags.apply(task)
			}
			if err == nil {
				err = document.Check(task)
			}
			if err != nil {
				return err
			}
			ctx, release := untilSignal(cmd.Context())
			defer release()
			host, err := c.open(ctx)
			if err != nil {
				return err
			}
			there, err := host.Executor.SaveState(ctx, task, &executor.Submission{BaseDir: base, Trusted: true})
			if err != nil {
				return orInterrupted(ctx, err)
			}
			what := "saved"
			if there {
				what = "there is one already"
			}
			_, err = fmt.Fprintf(c.caller.Stdout, "%s\n", what)
			return err
		},
	}
	cmd.Flags().StringVar(&flags.engine, "engine", "", "with this `engine`; else the first that saves states")
	cmd.Flags().StringArrayVar(&flags.limits, "limit", nil, "as the tasks have it: `WHAT=AMOUNT`, such as memory=1g, cpus or disk")
	cmd.Flags().StringVar(&file, "file", "", "of the machine that this task's document, `FILE`, wants")
	flags.set, flags.lookup = cmd.Flags().Changed, c.lookup
	return cmd
}

// snapshotTask is a task with the machine that is meant, and nothing else.
func snapshotTask(cmd *cobra.Command, args []string, file string, stdin io.Reader) (*caisson.Task, string, error) {
	task, base := &caisson.Task{}, "."
	switch {
	case (file == "") == (len(args) == 0):
		return nil, "", usageError(cmd, fmt.Errorf("want one IMAGE, or --file FILE"))
	case file == "":
		task.Image = args[0]
	default:
		whole, err := readDocument(file, stdin)
		if err != nil {
			return nil, "", err
		}
		task.Engine, task.Image, task.Machine, task.Registry = whole.Engine, whole.Image, whole.Machine, whole.Registry
		task.Limits, task.Network, task.Options = whole.Limits, whole.Network, whole.Options
		base = filepath.Dir(file)
	}
	// What it does comes after the state, and does not matter.
	task.Cmd = []string{"true"}
	base, err := filepath.Abs(base)
	return task, base, err
}

func (c *command) vmListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list saved states of machines",
		Long:  "List the states that tasks go on from in place of booting, the one that was used last first.",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			list, err := host.Executor.SavedStates(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, list)
			}
			now := time.Now()
			t := newTable(c.caller.Stdout, "KEY", "OF", "SIZE", "MADE", "USED", "BY")
			for _, s := range list {
				t.row(s.Key, s.Name, s.Size.String(), ago(now, s.Made), ago(now, s.Used), s.By)
			}
			return t.flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *command) vmRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm KEY...",
		Short: "delete saved states of machines",
		Long:  "Delete saved states by their keys. Tasks that went on from them are not disturbed; later ones boot.",
		Args:  someOf(1, 1000, "KEY..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			for _, key := range args {
				if err := host.Executor.RemoveSavedState(cmd.Context(), key); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
