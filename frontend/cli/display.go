package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/atomicfile"
)

func (c *command) displayCommand() *cobra.Command {
	var asJSON, remote bool
	var address string
	cmd := &cobra.Command{
		Use:   "display ID [NAME]",
		Short: "list a task's displays, or serve one to VNC viewers",
		Long: "List the screens of a task's sandbox: a virtual machine's own, and VNC servers that\n" +
			"the task names. With --vnc serve one of them, the first without NAME, to any number\n" +
			"of VNC viewers until it is interrupted or the sandbox is over: at a unix socket that\n" +
			"only this user can connect to, or at a port on loopback, to which every user of this\n" +
			"host can connect, without a password. The address is printed. A sandbox that is kept\n" +
			"or paused has its displays, too.",
		Example:           "  caisson display 01h9\n  caisson display 01h9 --vnc ./vnc.sock\n  caisson display 01h9 screen --vnc 127.0.0.1:5900",
		Args:              someOf(1, 2, "ID [NAME]"),
		ValidArgsFunction: c.completeOne(enterable),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 1 {
				name = args[1]
			}
			if address == "" {
				return c.listDisplays(cmd.Context(), args[0], name, asJSON)
			}
			at, err := parseViewing(address, remote)
			if err != nil {
				return usageError(cmd, err)
			}
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.serveDisplay(ctx, args[0], name, at))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&address, "vnc", "", "serve viewers at this `address`: a path, a port, or HOST:PORT")
	cmd.Flags().BoolVar(&remote, "allow-remote", false, "permit --vnc an address that other hosts reach; nothing is encrypted, and nobody is asked for a password")
	return cmd
}

func (c *command) listDisplays(ctx context.Context, arg, name string, asJSON bool) error {
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	list, err := host.Executor.Displays(ctx, id)
	if err != nil {
		return err
	}
	if list, err = chosenDisplays(list, name); err != nil {
		return err
	}
	if asJSON {
		return printJSON(c.caller.Stdout, list)
	}
	t := newTable(c.caller.Stdout, "NAME", "SIZE", "DESCRIPTION")
	for _, d := range list {
		size := ""
		if d.Width > 0 && d.Height > 0 {
			size = fmt.Sprintf("%dx%d", d.Width, d.Height)
		}
		t.row(d.Name, size, d.Description)
	}
	return t.flush()
}

// chosenDisplays returns the one of a name, or all without.
func chosenDisplays(list []engine.Display, name string) ([]engine.Display, error) {
	if name == "" {
		return list, nil
	}
	for _, d := range list {
		if d.Name == name {
			return []engine.Display{d}, nil
		}
	}
	return nil, &caisson.Error{Op: caisson.OpDisplay, Item: fmt.Sprintf("%q", name), Kind: caisson.ErrNotFound, Err: errors.New("no such display")}
}

func (c *command) screenshotCommand() *cobra.Command {
	var display string
	var force bool
	cmd := &cobra.Command{
		Use:               "screenshot [--display NAME] [--force] ID FILE.png|-",
		Short:             "write what a task's screen shows to a PNG file",
		Long:              "Write a picture of what a task's display shows, the first one without --display, to\na file, or with - to stdout. A file that exists is not overwritten without --force.",
		Args:              exactly(2, "ID and FILE.png"),
		ValidArgsFunction: c.completeOne(enterable),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.screenshot(ctx, args[0], display, args[1], force))
		},
	}
	cmd.Flags().StringVar(&display, "display", "", "the `name` of the display")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite a file that exists")
	return cmd
}

func (c *command) screenshot(ctx context.Context, arg, display, path string, force bool) error {
	if _, err := os.Lstat(path); path != "-" && err == nil && !force {
		return &caisson.Error{Op: "screenshot", Item: path, Kind: caisson.ErrExists, Err: errors.New("the file exists; use --force to overwrite it")}
	}
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	picture, err := host.Executor.Screenshot(ctx, id, display)
	if err != nil {
		return err
	}
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		return err
	}
	if path == "-" {
		_, err := c.caller.Stdout.Write(data.Bytes())
		return err
	}
	if err := atomicfile.Write(path, data.Bytes(), 0o644); err != nil {
		return &caisson.Error{Op: "screenshot", Item: path, Kind: caisson.KindOf(err), Err: err}
	}
	return nil
}
