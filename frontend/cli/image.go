package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image"
)

func (c *command) imageCommand() *cobra.Command {
	const verbs = "pull, load, list, inspect, rm, gc or build"
	cmd := &cobra.Command{
		Use:   "image pull|load|list|inspect|rm|gc|build",
		Short: "get, list and remove images",
		Long: "Images for engines that need a root file system are kept in the state folder. An\n" +
			"engine that has images of its own, as docker has, gets and removes them itself.",
		Args: exactly(1, verbs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError(cmd, fmt.Errorf("no command %q, want %s", args[0], verbs))
		},
	}
	cmd.AddCommand(c.imagePullCommand(), c.imageLoadCommand(), c.imageListCommand(), c.imageInspectCommand(),
		c.imageRemoveCommand(), c.imageCollectCommand(), c.imageBuildCommand())
	return cmd
}

// onImages returns a command's function that works on the store of images and
// that a signal interrupts.
func (c *command) onImages(f func(context.Context, *image.Store, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, release := untilSignal(cmd.Context())
		defer release()
		host, err := c.openQuietly(ctx)
		if err != nil {
			return err
		}
		return orInterrupted(ctx, f(ctx, host.Images, args))
	}
}

// newImage is what pull, load and build do with an image once it is there.
type newImage struct {
	unpack bool
	json   bool
}

func (n *newImage) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&n.unpack, "unpack", false, "unpack it, too, ahead of its first use")
	cmd.Flags().BoolVar(&n.json, "json", false, "print JSON")
}

// added is what --json prints of an image that was brought here.
type added struct {
	Names []string `json:"names"`
	*image.Image
}

// finish unpacks the images and prints them.
func (c *command) finish(ctx context.Context, store *image.Store, n *newImage, list []added) error {
	for i := range list {
		if !n.unpack {
			break
		}
		line := c.imageProgress("unpacking " + list[i].Names[0])
		err := store.Unpack(ctx, list[i].Image, line.update)
		line.clear()
		if err != nil {
			return err
		}
	}
	if n.json {
		return printJSON(c.caller.Stdout, orEmpty(list))
	}
	for i := range list {
		for _, name := range list[i].Names {
			if _, err := fmt.Fprintf(c.caller.Stdout, "%s %s\n", oneLine(name), list[i].Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *command) imagePullCommand() *cobra.Command {
	var req image.Request
	var n newImage
	cmd := &cobra.Command{
		Use:   "pull [--platform OS/ARCH] NAME...",
		Short: "get images from where their names say, or see that they are the newest",
		Long: "Get images: NAME[:TAG][@DIGEST] of a registry, or oci:DIR[:TAG], oci-archive:FILE[:TAG],\n" +
			"docker-archive:FILE or https://HOST/FILE#sha256=HEX. What is here already is not\n" +
			"fetched again. It prints each name with the digest of what it is now.",
		Args: someOf(1, 1000, "NAME..."),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, args []string) error {
			var list []added
			for _, name := range args {
				r, err := c.imageRequest(req, name)
				if err != nil {
					return err
				}
				r.Pull = image.PullAlways
				line := c.imageProgress(name)
				r.Progress = line.update
				img, err := store.Get(ctx, r)
				line.clear()
				if err != nil {
					return err
				}
				list = append(list, added{Names: []string{img.Name}, Image: img})
			}
			return c.finish(ctx, store, &n, list)
		}),
	}
	cmd.Flags().StringVar(&req.Platform, "platform", "", "take the image for this `platform`, such as linux/arm64")
	n.register(cmd)
	return cmd
}

// imageRequest is the request for an image by whoever calls the command.
func (c *command) imageRequest(base image.Request, ref string) (*image.Request, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	base.Ref, base.Dir, base.Trusted = ref, dir, true
	return &base, nil
}

func (c *command) imageLoadCommand() *cobra.Command {
	var req image.Request
	var n newImage
	var names []string
	cmd := &cobra.Command{
		Use:   "load [--name NAME[:TAG]]... FILE|DIR|-",
		Short: "take an image from an archive or a folder",
		Long: "Take an image from an archive as `docker save`, skopeo or podman write them, from\n" +
			"a folder in the layout of OCI, or from stdin. It gets the names given here, or else\n" +
			"those that it brings. FILE may also be a reference such as oci:DIR:TAG.",
		Args: exactly(1, "FILE, DIR or -"),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, args []string) error {
			ref, done, err := c.archive(args[0])
			if err != nil {
				return err
			}
			defer done()
			r, err := c.imageRequest(req, ref)
			if err != nil {
				return err
			}
			line := c.imageProgress(args[0])
			r.Progress = line.update
			img, all, err := store.Load(ctx, r, names...)
			line.clear()
			if err != nil {
				return err
			}
			if args[0] == "-" && strings.HasSuffix(ref, all[0]) {
				return errors.Join(
					&caisson.Error{Op: image.OpImage, Item: "stdin", Kind: caisson.ErrInvalid, Err: errors.New("the archive gives the image no name: use --name")},
					store.Remove(ctx, all[0], false))
			}
			return c.finish(ctx, store, &n, []added{{Names: all, Image: img}})
		}),
	}
	cmd.Flags().StringArrayVar(&names, "name", nil, "call it by this `name`, which may have a tag")
	cmd.Flags().StringVar(&req.Platform, "platform", "", "take the image for this `platform`, such as linux/arm64")
	n.register(cmd)
	return cmd
}

// archive returns a reference to an image in a file, a folder or stdin. done
// removes what was made for it.
func (c *command) archive(arg string) (ref string, done func(), err error) {
	done = func() {}
	for _, scheme := range []image.Scheme{image.SchemeLayout, image.SchemeOCIArchive, image.SchemeDockerArchive, image.SchemeWeb} {
		if strings.HasPrefix(arg, string(scheme)+":") {
			return arg, done, nil
		}
	}
	path := arg
	if arg == "-" {
		if path, done, err = c.spool(); err != nil {
			return "", nil, err
		}
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil, &caisson.Error{Op: image.OpImage, Item: arg, Kind: caisson.ErrNotFound, Err: errors.New("no such file or folder")}
	}
	if err != nil {
		return "", nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", nil, err
	}
	if info.IsDir() {
		return string(image.SchemeLayout) + ":" + path, done, nil
	}
	scheme, err := archiveKind(path)
	if err != nil {
		done()
		return "", nil, &caisson.Error{Op: image.OpImage, Item: arg, Kind: caisson.ErrInvalid, Err: err}
	}
	return string(scheme) + ":" + path, done, nil
}

// spool writes stdin to a file: archives are not read in order.
func (c *command) spool() (path string, done func(), err error) {
	dir, err := os.MkdirTemp("", "caisson-load-")
	if err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "stdin")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = io.Copy(f, c.caller.Stdin)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		done()
		return "", nil, err
	}
	return path, done, nil
}

// archiveKind tells what kind of archive of images a file is by its members.
// Those of newer programs are of both kinds.
func archiveKind(path string) (image.Scheme, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	layout := false
	for rd := tar.NewReader(f); ; {
		header, err := rd.Next()
		if errors.Is(err, io.EOF) && layout {
			return image.SchemeOCIArchive, nil
		}
		if err != nil {
			return "", errors.New("not an archive of an image: neither manifest.json nor index.json is in it")
		}
		switch strings.TrimPrefix(header.Name, "./") {
		case "manifest.json":
			return image.SchemeDockerArchive, nil
		case "index.json":
			layout = true
		}
	}
}

func (c *command) imageListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "list images",
		Args:    exactly(0, "none"),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, _ []string) error {
			list, err := store.List(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, orEmpty(list))
			}
			now := time.Now()
			t := newTable(c.caller.Stdout, "NAME", "ID", "PLATFORM", "SIZE", "UNPACKED", "PULLED", "USED", "IN USE")
			for i := range list {
				r := &list[i]
				unpacked := ""
				if r.Unpacked {
					unpacked = size(r.UnpackedSize)
				}
				t.row(r.Name, shortID(r.ID), r.Platform, size(r.Size), unpacked, ago(now, r.Pulled), ago(now, r.Used), word(r.InUse, "yes"))
			}
			return t.flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// shortID is an id as people know it.
func shortID(id string) string {
	hex := strings.TrimPrefix(id, "sha256:")
	return hex[:min(12, len(hex))]
}

// inspected is what --json prints of an image.
type inspected struct {
	Record *image.Record `json:"record"`
	Image  *image.Image  `json:"image"`
}

func (c *command) imageInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "inspect NAME...",
		Short:             "tell all about images",
		Long:              "Tell all about images, named by name, digest or the beginning of the id.",
		Args:              someOf(1, 1000, "NAME..."),
		ValidArgsFunction: c.completeImages,
		RunE: c.onImages(func(ctx context.Context, store *image.Store, args []string) error {
			var list []inspected
			for _, name := range args {
				img, record, err := store.Inspect(ctx, name)
				if err != nil {
					return err
				}
				list = append(list, inspected{record, img})
			}
			if asJSON {
				return printJSON(c.caller.Stdout, list)
			}
			for i := range list {
				if err := printImage(c.caller.Stdout, &list[i]); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printImage prints what is known of an image, a line each.
func printImage(w io.Writer, i *inspected) error {
	r, config := i.Record, &i.Image.Config
	t := linesTable(w)
	line := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	line("name", r.Name)
	line("digest", r.Digest)
	line("id", r.ID)
	line("platform", r.Platform)
	line("size", fmt.Sprintf("%s in %d layers", size(r.Size), i.Image.Layers))
	if r.Unpacked {
		line("unpacked", size(r.UnpackedSize))
	}
	line("built", timeText(r.Created))
	line("pulled", timeText(r.Pulled))
	line("used", timeText(r.Used))
	line("in use", word(r.InUse, "yes"))
	line("access", word(r.Private, "with the credentials only that it was pulled with"))
	line("left out", strings.Join(r.Skipped, " "))
	line("entrypoint", strings.Join(config.Entrypoint, " "))
	line("command", strings.Join(config.Cmd, " "))
	line("user", config.User)
	line("workdir", config.Workdir)
	line("stop signal", config.StopSignal)
	line("volumes", strings.Join(config.Volumes, " "))
	line("ports", strings.Join(config.ExposedPorts, " "))
	for _, env := range config.Env {
		line("env", env)
	}
	return t.flush()
}

func (c *command) imageRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [--force] NAME...",
		Short:             "remove images that no task uses",
		Args:              someOf(1, 1000, "NAME..."),
		ValidArgsFunction: c.completeImages,
		RunE: c.onImages(func(ctx context.Context, store *image.Store, args []string) error {
			for _, name := range args {
				if err := store.Remove(ctx, name, force); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "forget the name of an image that a task uses: the rest goes once that has ended and gc runs")
	return cmd
}

func (c *command) imageCollectCommand() *cobra.Command {
	var opts image.GCOptions
	var age caisson.Duration
	var keep, free sizeValue
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gc [--age D] [--keep SIZE] [--free SIZE] [--all] [--dry-run]",
		Short: "remove images that are old or too many, and what is left of removed ones",
		Long: "Remove images that were not used for --age, and then the least recently used ones\n" +
			"until all are no larger than --keep and the file system has --free. Without any of\n" +
			"these, the settings of [image] count. What a task uses stays.",
		Args: exactly(0, "none"),
		RunE: c.onImages(func(ctx context.Context, store *image.Store, _ []string) error {
			opts.MaxAge, opts.MaxBytes, opts.MinFree = age.Std(), caisson.Bytes(keep), caisson.Bytes(free)
			dryRun := opts.DryRun
			if opts.DryRun = false; opts == (image.GCOptions{}) {
				opts = store.GCDefaults()
			}
			opts.DryRun = dryRun
			result, err := store.GC(ctx, opts)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, result)
			}
			for _, name := range result.Images {
				fmt.Fprintf(c.caller.Stdout, "%s\n", oneLine(name))
			}
			_, err = fmt.Fprintf(c.caller.Stdout, "%s %s in %d images, %d blobs and %d unpacked; %s kept\n",
				map[bool]string{true: "would free", false: "freed"}[opts.DryRun], size(result.Freed),
				len(result.Images), result.Blobs, result.Trees, size(result.Kept))
			return err
		}),
	}
	flags := cmd.Flags()
	durationVar(flags, &age, "age", "remove images not used for this `duration`, such as 720h")
	flags.Var(&keep, "keep", "keep at most this `size` of images, such as 20g")
	flags.Var(&free, "free", "have at least this `size` free on the file system")
	flags.BoolVar(&opts.All, "all", false, "remove all images that no task uses")
	flags.BoolVar(&opts.DryRun, "dry-run", false, "only tell what would be removed")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// sizeValue is a flag's value.
type sizeValue caisson.Bytes

func (v *sizeValue) Set(text string) error {
	n, err := caisson.ParseBytes(text)
	*v = sizeValue(n)
	return err
}

// Type is the word for it in the help.
func (v *sizeValue) Type() string { return "size" }

func (v *sizeValue) String() string {
	if v == nil || *v == 0 {
		return ""
	}
	return caisson.Bytes(*v).String()
}

// completeImages offers names of images.
func (c *command) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	host, err := c.openQuietly(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := host.Images.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	words := make([]string, len(list))
	for i := range list {
		words[i] = list[i].Name
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// An imageLine shows on a terminal how far an image is: one line that is gone
// when it is there. It is used by one goroutine at a time.
type imageLine struct {
	line  progressLine
	name  string
	parts imageParts
}

// imageParts adds up how far the parts of one image are. Its zero value is of
// none.
type imageParts struct {
	ref   string
	parts map[string]image.Progress
}

// add returns how much there is of all parts that are known.
func (i *imageParts) add(ref string, p image.Progress) (sum image.Progress) {
	if i.ref != ref || i.parts == nil {
		i.ref, i.parts = ref, map[string]image.Progress{}
	}
	i.parts[p.Digest] = p
	for _, part := range i.parts {
		sum.Done, sum.Total = sum.Done+part.Done, sum.Total+part.Total
	}
	return sum
}

func (c *command) imageProgress(name string) *imageLine {
	l := &imageLine{name: name}
	if f := file(c.caller.Stderr); isTerminal(f) {
		l.line.w = f
	}
	return l
}

// update adds up the parts.
func (l *imageLine) update(p image.Progress) {
	if l.line.w == nil {
		return
	}
	sum := l.parts.add(l.name, p)
	l.line.draw(l.name, int64(sum.Done), int64(sum.Total))
}

func (l *imageLine) clear() { l.line.clear() }
