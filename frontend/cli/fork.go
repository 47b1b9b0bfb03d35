package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *command) forkCommand() *cobra.Command {
	var n int
	cmd := &cobra.Command{
		Use:   "fork [-n N] ID",
		Short: "copy a running task, with its files and, of a virtual machine, its memory",
		Long: "Make copies of a task whose main program runs, all of one point, and print their\n" +
			"ids. Each is a task of its own from there on: it has the original's document and\n" +
			"secrets, a log that begins at that point, and it waits, is stopped and ends by\n" +
			"itself. The original runs on.\n\n" +
			"What a copy has depends on the engine (`caisson engines`, at \"while it runs\"): with\n" +
			"fork (memory), of virtual machines, programs go on in it, with all their files as\n" +
			"they were; the task must be forkable (`--forkable`), or a machine of its own. With\n" +
			"fork (disk) it has a copy of the work folder, and its program begins anew; pause\n" +
			"the task before for files of one time. Inputs are not fetched again and pre steps\n" +
			"not repeated. Sidecars, ports, proxies and allow-lists can't be copied: such tasks\n" +
			"are refused.",
		Args:              exactly(1, "ID"),
		ValidArgsFunction: c.completeOne(running),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := host.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			ids, err := host.Executor.Fork(cmd.Context(), id, n)
			for _, id := range ids {
				fmt.Fprintln(c.caller.Stdout, id)
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&n, "number", "n", 1, "make `N` copies")
	return cmd
}
