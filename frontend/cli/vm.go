package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/bootable"
)

func (c *command) vmCommand() *cobra.Command {
	const verbs = "build|snapshot|list|rm"
	cmd := &cobra.Command{
		Use:   "vm " + verbs,
		Short: "make images of virtual machines, and save machines that have booted",
		Args:  exactly(1, verbs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError(cmd, fmt.Errorf("no command %q, want %s", args[0], verbs))
		},
	}
	cmd.AddCommand(c.vmBuildCommand(), c.vmSnapshotCommand(), c.vmListCommand(), c.vmRemoveCommand())
	return cmd
}

// archiveEnd is how the name of an archive of a machine ends.
const archiveEnd = ".zst"

func (c *command) vmBuildCommand() *cobra.Command {
	var o bootable.Options
	var req image.Request
	var size, cmdline string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "build -o FILE [--kernel-package DEB]... [--kernel DIR] [--size SIZE] IMAGE",
		Short: "make a disk that a machine boots from an image and a kernel",
		Long: "Make a disk that a machine boots by its BIOS: the image's root file system with room\n" +
			"to write, a kernel of packages of Debian's, and Caisson's agent. The agent is a service\n" +
			"where the image has systemd, and else the first process. FILE is a raw disk, or a\n" +
			"compressed archive if it ends in " + archiveEnd + ". Run it by `machine: {image: FILE}`.",
		Example: "  apt-get download linux-image-6.1.0-40-amd64\n" +
			"  caisson vm build -o debian.tar.zst --kernel-package linux-image-6.1.0-40-amd64_*.deb debian:12",
		Args: exactly(1, "IMAGE"),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, args []string) error {
			var err error
			if o.Output == "" {
				return usagef("name the file to be made: -o FILE")
			}
			if size != "" {
				if o.Size, err = caisson.ParseBytes(size); err != nil {
					return usagef("--size %q: want a size such as 4g", size)
				}
			}
			r, err := c.imageRequest(req, args[0])
			if err != nil {
				return err
			}
			line := c.imageProgress(args[0])
			r.Progress = line.update
			o.Image, err = store.Get(ctx, r)
			line.clear()
			if err != nil {
				return err
			}
			o.Store, o.Cmdline, o.Archive = store, strings.Fields(cmdline), strings.HasSuffix(o.Output, archiveEnd)
			made, err := bootable.Build(ctx, &o)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, made)
			}
			_, err = fmt.Fprintf(c.caller.Stdout, "%s kernel %s, init %s, disk %s, memory at least %s\n",
				oneLine(o.Output), oneLine(made.Kernel), made.First(), made.Size, made.Memory)
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Output, "output", "o", "", "make this `file`, which must not exist")
	flags.StringArrayVar(&o.Packages, "kernel-package", nil, "take the kernel and its modules from this `file`, a package of Debian's")
	flags.StringVar(&o.Kernel, "kernel", "", "take them from this `folder`, where such packages were unpacked")
	flags.StringVar(&size, "size", "", "make the file system so large (default 4g)")
	flags.StringVar(&cmdline, "cmdline", "", "add this `text` to the kernel's command line")
	flags.StringVar(&req.Platform, "platform", "", "take the image for this `platform`")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
