package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func (c *command) pauseCommand() *cobra.Command {
	return c.haltingCommand("pause ID...", "halt all that runs in tasks' sandboxes",
		"Halt every process in the task's sandbox where it is, until resume or the task's\n"+
			"end; of a virtual machine, its processors. Its time limit runs on. What is paused\n"+
			"already stays so.",
		func(ctx context.Context, h *Host, id string) error { return h.Executor.Pause(ctx, id) })
}

func (c *command) resumeCommand() *cobra.Command {
	return c.haltingCommand("resume ID...", "let paused tasks go on", "Undo pause.",
		func(ctx context.Context, h *Host, id string) error { return h.Executor.Resume(ctx, id) })
}

// haltingCommand is a command that does something to tasks that run.
func (c *command) haltingCommand(use, short, long string, do func(ctx context.Context, h *Host, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		Args:              someOf(1, 1000, "ID..."),
		ValidArgsFunction: c.completeMany(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			ids, err := host.tasks(cmd.Context(), args)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := do(cmd.Context(), host, id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
