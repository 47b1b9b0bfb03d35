package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func (c *command) waitCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: "wait for tasks and exit as they did",
		Long: "Wait until tasks have ended. The exit status is the task's, as for run; of\n" +
			"several, that of the first in the order given that did not succeed.",
		Args:              someOf(1, 1000, "ID..."),
		ValidArgsFunction: c.completeMany(anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.wait(ctx, args, asJSON))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print results as JSON, one object for each task")
	return cmd
}

func (c *command) wait(ctx context.Context, args []string, asJSON bool) error {
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	ids, err := host.tasks(ctx, args)
	if err != nil {
		return err
	}
	var first error
	for _, id := range ids {
		result, err := host.Executor.Wait(ctx, id)
		if err != nil {
			return err
		}
		if asJSON {
			if err := printJSON(c.caller.Stdout, result); err != nil {
				return err
			}
		}
		if err := c.ended(result); first == nil && err != exitStatus(0) {
			first = err
		}
	}
	return first
}

// tasks returns the full ids of all arguments, so that a mistake in one of
// them shows before anything is done to another.
func (h *Host) tasks(ctx context.Context, args []string) ([]string, error) {
	ids := make([]string, len(args))
	for i, arg := range args {
		id, err := h.task(ctx, arg)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

func (c *command) stopCommand() *cobra.Command {
	var sig string
	var grace caisson.Duration
	cmd := c.endingCommand("stop ID...", "ask tasks to end, and kill them after a grace",
		"Send the task's program its stop signal, wait for the grace, then kill everything\n"+
			"in its sandbox. What follows a task's end follows: outputs that are taken after\n"+
			"failures, finally steps. There is no further attempt.", nil)
	cmd.Flags().StringVar(&sig, "signal", "", "send this `signal` instead of the task's own")
	durationVar(cmd.Flags(), &grace, "grace", "instead of the task's own; 0 kills at once")
	cmd.RunE = c.ending(func(task *caisson.Task) (engine.Stop, error) {
		stop := engine.Stop{Reason: caisson.ReasonStopped, Grace: graceOf(task)}
		if cmd.Flags().Changed("grace") {
			stop.Grace = grace
		}
		var err error
		if sig != "" {
			if stop.Signal, err = caisson.ParseSignal(sig); err != nil {
				err = usagef("stop: --%w", err)
			}
		}
		return stop, err
	})
	return cmd
}

func (c *command) killCommand() *cobra.Command {
	return c.endingCommand("kill ID...", "kill tasks at once, keeping their sandbox's files",
		"Kill everything in the task's sandbox. Its files are kept until the task's end has\n"+
			"been seen to, as after any other end. There is no further attempt.",
		func(*caisson.Task) (engine.Stop, error) { return engine.Stop{Reason: caisson.ReasonKilled}, nil })
}

func (c *command) abortCommand() *cobra.Command {
	return c.endingCommand("abort ID...", "destroy tasks' sandboxes at once; the attempt does not count",
		"Destroy the task's sandbox with all that is in it. Nothing is staged out, and the\n"+
			"attempt does not count.",
		func(*caisson.Task) (engine.Stop, error) { return engine.Stop{Reason: caisson.ReasonAborted}, nil })
}

// endingCommand is a command that ends tasks and waits for their end.
func (c *command) endingCommand(use, short, long string, stop func(*caisson.Task) (engine.Stop, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long + "\n\nReturns when the tasks have ended.",
		Args:              someOf(1, 1000, "ID..."),
		ValidArgsFunction: c.completeMany(running),
		RunE:              c.ending(stop),
	}
}

// ending returns what such a command does.
func (c *command) ending(stop func(*caisson.Task) (engine.Stop, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, release := untilSignal(cmd.Context())
		defer release()
		host, err := c.open(ctx)
		if err != nil {
			return err
		}
		var ids []string
		for _, arg := range args {
			info, err := host.Executor.Inspect(ctx, arg)
			if err != nil {
				return err
			}
			how, err := stop(info.Task)
			if err != nil {
				return err
			}
			if err := host.Executor.Stop(ctx, info.ID, how); err != nil {
				return err
			}
			ids = append(ids, info.ID)
		}
		for _, id := range ids {
			if _, err := host.Executor.Wait(ctx, id); err != nil {
				return orInterrupted(ctx, err)
			}
		}
		return nil
	}
}

func (c *command) signalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "signal ID SIGNAL",
		Short: "send a signal to a task's program",
		Long:  "Send a signal, by name or Linux number, to the task's program itself.",
		Args:  exactly(2, "ID SIGNAL"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return signalWords(), cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeOne(running)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := caisson.ParseSignal(args[1])
			if err != nil {
				return usagef("signal: %w", err)
			}
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := host.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return host.Executor.Signal(cmd.Context(), id, sig)
		},
	}
}

func (c *command) removeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [--force] ID...",
		Short:             "delete ended tasks with all they left",
		Long:              "Delete ended tasks: results, logs, kept files. Outputs that were staged out stay.",
		Args:              someOf(1, 1000, "ID..."),
		ValidArgsFunction: c.completeMany(anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			host, err := c.open(ctx)
			if err != nil {
				return err
			}
			ids, err := host.tasks(ctx, args)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := host.Executor.Remove(ctx, id, force); err != nil {
					return orInterrupted(ctx, removeError(err))
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "abort those that have not ended")
	return cmd
}

// removeError says what to do about a task that has not ended.
func removeError(err error) error {
	if errors.Is(err, caisson.ErrExists) {
		return fmt.Errorf("%w; stop it first or use --force", err)
	}
	return err
}
