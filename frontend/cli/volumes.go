package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/mount/volume"
)

func (c *command) volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume create|list|export|rm",
		Short: "make, list, export and delete named volumes",
		Args:  exactly(1, "create, list, export or rm"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError(cmd, fmt.Errorf("no command %q, want create, list, export or rm", args[0]))
		},
	}
	cmd.AddCommand(c.volumeCreateCommand(), c.volumeListCommand(), c.volumeExportCommand(), c.volumeRemoveCommand())
	return cmd
}

func (c *command) volumeCreateCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "create [--from FOLDER|TAR|-] NAME",
		Short: "make a volume, empty or filled",
		Args:  exactly(1, "one NAME"),
		RunE: c.onVolumes(func(ctx context.Context, store *volume.Store, args []string) error {
			opts := &volume.CreateOptions{}
			done, err := c.fill(opts, from)
			if err != nil {
				return err
			}
			defer done()
			return store.Create(ctx, args[0], opts)
		}),
	}
	cmd.Flags().StringVar(&from, "from", "", "fill it from this folder, tar `file`, or tar stream on stdin (-)")
	return cmd
}

// fill says in opts what a new volume gets. done closes what was opened.
func (c *command) fill(opts *volume.CreateOptions, from string) (done func(), err error) {
	done = func() {}
	switch from {
	case "":
		return done, nil
	case "-":
		opts.Tar = c.caller.Stdin
		return done, nil
	}
	info, err := os.Stat(from)
	if os.IsNotExist(err) {
		return nil, &caisson.Error{Op: "volume", Item: from, Kind: caisson.ErrNotFound, Err: errors.New("no such file or folder")}
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		opts.Dir = from
		return done, nil
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	opts.Tar = f
	return func() { f.Close() }, nil
}

func (c *command) volumeListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list volumes",
		Args:    exactly(0, "none"),
		RunE: c.onVolumes(func(ctx context.Context, store *volume.Store, _ []string) error {
			list, err := store.List(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, orEmpty(list))
			}
			now := time.Now()
			t := newTable(c.caller.Stdout, "NAME", "SIZE", "CREATED", "USED", "IN USE")
			for i := range list {
				v := &list[i]
				t.row(v.Name, size(v.Size), ago(now, v.CreatedAt), ago(now, v.UsedAt), word(v.InUse, "yes"))
			}
			return t.flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *command) volumeExportCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:               "export [--to FILE] NAME",
		Short:             "write a volume's files as a tar stream",
		Args:              exactly(1, "one NAME"),
		ValidArgsFunction: c.completeVolumes,
		RunE: c.onVolumes(func(ctx context.Context, store *volume.Store, args []string) error {
			if to == "" || to == "-" {
				return store.Export(ctx, args[0], c.caller.Stdout)
			}
			return exportTo(to, func(w io.Writer) error { return store.Export(ctx, args[0], w) })
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "write to this `file` instead of stdout; it must not exist")
	return cmd
}

// exportTo writes a new file; what could not be written completely is removed.
func exportTo(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (c *command) volumeRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "delete volumes with all their files",
		Args:              someOf(1, 1000, "NAME..."),
		ValidArgsFunction: c.completeVolumes,
		RunE: c.onVolumes(func(ctx context.Context, store *volume.Store, args []string) error {
			for _, name := range args {
				if err := store.Remove(ctx, name); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

// onVolumes returns a command's function that works on the store and that a
// signal interrupts.
func (c *command) onVolumes(f func(context.Context, *volume.Store, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, release := untilSignal(cmd.Context())
		defer release()
		host, err := c.openQuietly(ctx)
		if err != nil {
			return err
		}
		return orInterrupted(ctx, f(ctx, host.Volumes, args))
	}
}
