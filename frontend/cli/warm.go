package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson/executor"
)

func (c *command) warmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "warm",
		Short: "look after sandboxes that are made before there are tasks for them",
		Long: "Each section [warm.NAME] of the configuration is a pool of sandboxes that wait for\n" +
			"tasks. A task whose engine, image, user, network and limits are those of the pool is\n" +
			"given one of them, which takes milliseconds; nothing has ever run in it, and it ends\n" +
			"with the task. Any other task, and one that finds the pool empty, has its sandbox\n" +
			"made as ever. There is no daemon: who takes one has the next one made.",
		Args: exactly(0, "a subcommand"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.warmListCommand(), c.warmFillCommand(), c.warmDrainCommand())
	return cmd
}

func (c *command) warmListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list warm pools",
		Long: "List the pools, with how many sandboxes wait in each, and why one could not be made\n" +
			"the last time. Those that are stale were made under other settings, of an image\n" +
			"that the name meant before, or before a reboot: no task is given one.",
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			list, err := host.Executor.Pools(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, list)
			}
			t := newTable(c.caller.Stdout, "POOL", "ENGINE", "OF", "READY", "SIZE", "OLDEST", "NOTE")
			for i := range list {
				p := &list[i]
				oldest := ""
				if !p.Oldest.IsZero() {
					oldest = ago(time.Now(), p.Oldest)
				}
				t.row(p.Name, p.Engine, p.Image+p.Module, strconv.Itoa(p.Ready), strconv.Itoa(p.Size), oldest, poolNote(p))
			}
			return t.flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// poolNote is what else there is to say of a pool, on one line.
func poolNote(p *executor.PoolInfo) string {
	switch {
	case p.Filling:
		return "being filled"
	case p.Error != "":
		return oneLine(p.Error)
	case p.Size == 0:
		return "not configured any more; drain it"
	case p.Stale > 0:
		return fmt.Sprintf("%d stale; fill it", p.Stale)
	}
	return ""
}

func (c *command) warmFillCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fill [NAME...]",
		Short: "make the sandboxes that warm pools lack",
		Long: "Make sandboxes until each of the named pools, or of all, has its size, after those\n" +
			"are removed that no task can have any more. Tasks do so by themselves; this is for\n" +
			"the time before the first one, such as when the host has been started.",
		Args: someOf(0, 1000, "[NAME...]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return c.eachPool(cmd, args, false, func(x *executor.Executor, name string) error {
				made, err := x.Fill(ctx, name)
				if made > 0 {
					fmt.Fprintf(c.caller.Stdout, "%s: made %d\n", name, made)
				}
				return orInterrupted(ctx, err)
			})
		},
	}
}

func (c *command) warmDrainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drain [NAME...]",
		Short: "remove the sandboxes that wait in warm pools",
		Long: "Remove the sandboxes that wait in the named pools, or in all. Tasks that have one\n" +
			"already are not disturbed. The next task that could have had one fills its pool again.",
		Args: someOf(0, 1000, "[NAME...]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachPool(cmd, args, true, func(x *executor.Executor, name string) error {
				removed, err := x.Drain(cmd.Context(), name)
				if removed > 0 {
					fmt.Fprintf(c.caller.Stdout, "%s: removed %d\n", name, removed)
				}
				return err
			})
		},
	}
}

// eachPool calls f for the named pools, or for those that are configured, and with all
// for those that were, too. It goes on after an error.
func (c *command) eachPool(cmd *cobra.Command, names []string, all bool, f func(x *executor.Executor, name string) error) error {
	host, err := c.open(cmd.Context())
	if err != nil {
		return err
	}
	if len(names) == 0 {
		list, err := host.Executor.Pools(cmd.Context())
		if err != nil {
			return err
		}
		for i := range list {
			if list[i].Size > 0 || all {
				names = append(names, list[i].Name)
			}
		}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, f(host.Executor, name))
	}
	return errors.Join(errs...)
}
