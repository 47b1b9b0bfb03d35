package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/image/build"
)

func (c *command) imageBuildCommand() *cobra.Command {
	var opts build.Options
	var args []string
	var n newImage
	cmd := &cobra.Command{
		Use:   "build [--name NAME[:TAG]]... [--file FILE] DIR|DOCKERFILE|URL",
		Short: "build an image of a Dockerfile, a folder or a git repository",
		Long: "Build an image through BuildKit (buildctl) or a docker daemon, whichever is usable,\n" +
			"and take it from there. Caisson does not build by itself. What the builder says\n" +
			"goes to stderr. URL is that of a git repository, maybe with #REF or #REF:FOLDER.",
		Example: "  caisson image build --name hello .\n" +
			"  caisson image build --name hello https://example.com/hello.git#main:docker",
		Args: exactly(1, "DIR, DOCKERFILE or URL"),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, sources []string) error {
			opts.Source, opts.Output, opts.Environ = sources[0], c.caller.Stderr, c.caller.Environ
			opts.Args = map[string]string{}
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok {
					value = c.env[name]
				}
				if name == "" {
					return usagef("--build-arg %q: want NAME=VALUE", arg)
				}
				opts.Args[name] = value
			}
			img, names, err := build.Run(ctx, store, &opts)
			if err != nil {
				return err
			}
			return c.finish(ctx, store, &n, []added{{Names: names, Image: img}})
		}),
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&opts.Tags, "name", nil, "call it by this `name`, which may have a tag")
	flags.StringVar(&opts.File, "file", "", "the Dockerfile's `path` in the folder (default Dockerfile)")
	flags.StringArrayVar(&args, "build-arg", nil, "set a variable of the build, as `NAME=VALUE`; NAME alone takes the caller's value")
	flags.StringVar(&opts.Target, "target", "", "build this `stage` of the Dockerfile")
	flags.StringVar(&opts.Platform, "platform", "", "build for this `platform`, such as linux/arm64")
	flags.BoolVar(&opts.NoCache, "no-cache", false, "use nothing of earlier builds")
	flags.StringVar(&opts.Builder, "builder", "", fmt.Sprintf("use this `builder`: %s or %s", build.BuildKit, build.Docker))
	n.register(cmd)
	return cmd
}
