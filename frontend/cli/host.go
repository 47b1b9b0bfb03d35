package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/document"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/version"
)

func (c *command) enginesCommand() *cobra.Command {
	var doc, asJSON bool
	cmd := &cobra.Command{
		Use:   "engines [--doc]",
		Short: "tell which engines work here, and what they can do",
		Long: "Try every engine on this host and tell whether it works, what it can do, and why\n" +
			"not. With --doc, print the documentation of each.",
		Args: exactly(0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			host, err := c.openQuietly(ctx)
			if err != nil {
				return err
			}
			list, err := host.Executor.Engines(ctx)
			if err != nil {
				return orInterrupted(ctx, err)
			}
			switch {
			case asJSON:
				return printJSON(c.caller.Stdout, orEmpty(list))
			case doc:
				return printDocs(c.caller.Stdout, list)
			}
			return printEngines(c.caller.Stdout, list)
		},
	}
	cmd.Flags().BoolVar(&doc, "doc", false, "print the engines' documentation, in Markdown")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDocs(w io.Writer, list []executor.EngineStatus) error {
	for i := range list {
		if _, err := fmt.Fprintln(w, strings.TrimRight(list[i].Features.Doc, "\n")); err != nil {
			return err
		}
	}
	return nil
}

func printEngines(w io.Writer, list []executor.EngineStatus) error {
	for i := range list {
		if err := printEngine(w, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// printEngine prints an engine's name and whether it works, and below that
// what it can do and what is missing.
func printEngine(w io.Writer, e *executor.EngineStatus) error {
	f := &e.Features
	state := "works"
	switch {
	case e.Error != "":
		state = "does not work: " + e.Error
	case !f.Usable:
		state = "does not work here"
	}
	if f.Version != "" {
		state += ", " + f.Version
	}
	fmt.Fprintf(w, "%s: %s\n", clean(e.Name), oneLine(state))
	t := linesTable(w)
	line := func(name string, list []string) {
		if len(list) > 0 {
			t.row("  "+name, strings.Join(list, ", "))
		}
	}
	line("runs", words(word(f.Command, "command"), word(f.Script, "script"), word(f.Image, "image"),
		word(f.RootFS, "image, unpacked"), word(f.Module, "module"), word(f.Machine, "machine"), word(f.Options, "options")))
	line("limits", words(word(f.Limits.CPUs, "cpus"), word(f.Limits.Memory, "memory"), word(f.Limits.PIDs, "pids"),
		word(f.Limits.Disk, "disk"), word(f.Limits.Log, "log"), word(f.Limits.Files, "files")))
	line("networks", words(word(f.Networks.None, "none"), word(f.Networks.Default, "default"), word(f.Networks.Host, "host"),
		word(f.Networks.Allow, "allow"), word(f.Networks.Named, "named"), word(f.Networks.Shared, "shared by steps"),
		word(f.Networks.Inside, "served from inside")))
	line("mounts", words(word(f.Mounts.Bind, "bind"), word(f.Mounts.Tmpfs, "tmpfs"), word(f.Mounts.ReadOnly, "read-only")))
	line("task may ask for", words(word(f.User, "user"), word(f.Hostname, "hostname"), word(f.Privileged, "privileged"),
		word(f.Devices, "devices"), word(f.GPUs, "gpus"), word(f.Registry, "registry"), word(f.Ports, "ports"),
		word(f.DNS, "dns"), word(f.Secrets, "secrets"), word(f.Gateway, "proxies"), word(f.Displays, "displays")))
	line("while it runs", words(word(f.Exec, "exec"), word(f.Terminal, "exec -t"), word(f.Files, "cp"), word(f.Stats, "stats"),
		word(f.Pause, "pause"), word(f.Fork != "", "fork ("+f.Fork+")"), word(f.Warm, "made ahead")))
	line("isolation", f.Isolation)
	for _, m := range f.Missing {
		text := m.Why
		if m.Do != "" {
			text += "; " + m.Do
		}
		line("no "+m.What, []string{text})
	}
	return t.flush()
}

// word is name if it is so.
func word(so bool, name string) string {
	if so {
		return name
	}
	return ""
}

// words leaves out empty names.
func words(names ...string) []string {
	var list []string
	for _, name := range names {
		if name != "" {
			list = append(list, name)
		}
	}
	return list
}

func (c *command) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE|-...",
		Short: "check task documents",
		Long: "Check task documents without running them. Everything that is wrong is told at\n" +
			"once, one line each: FILE:LINE:COLUMN: path: what and what would be right. The\n" +
			"exit status is 1 if there is anything.",
		Args:              someOf(1, 10000, "FILE..."),
		ValidArgsFunction: completeDocuments,
		RunE: func(_ *cobra.Command, args []string) error {
			wrong := false
			for _, name := range args {
				_, err := readDocument(name, c.caller.Stdin)
				var problems document.Problems
				switch {
				case errors.As(err, &problems):
					wrong = true
					c.printProblems(problems)
				case err != nil:
					return err
				}
			}
			if wrong {
				return exitStatus(statusProblems)
			}
			return nil
		},
	}
}

func (c *command) schemaCommand() *cobra.Command {
	names, help := schemaNames()
	return &cobra.Command{
		Use:       "schema NAME",
		Short:     "print the JSON Schema of a kind of document",
		Long:      "Print a JSON Schema:\n\n  task            A task document.\n  config          The configuration, caisson.toml.\n" + help,
		Args:      exactly(1, "a name"),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			var schema []byte
			switch args[0] {
			case "task":
				schema = document.Schema()
			case "config":
				schema = config.Schema(c.caller.Sections)
			default:
				schema = component.Schema(args[0])
			}
			if schema == nil {
				return usageError(cmd, fmt.Errorf("no schema %q, want one of %s", args[0], strings.Join(names, ", ")))
			}
			_, err := fmt.Fprintf(c.caller.Stdout, "%s\n", strings.TrimRight(string(schema), "\n"))
			return err
		},
	}
}

func (c *command) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config show|check|import",
		Short: "show, check or translate the configuration",
		Long: "The configuration is caisson.toml in this folder, in $XDG_CONFIG_HOME/caisson or\n" +
			"in /etc/caisson, then variables such as CAISSON_ENGINE_NATIVE_SHELL, then flags.",
		Args: exactly(1, "show, check or import"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError(cmd, fmt.Errorf("no command %q, want show or check", args[0]))
		},
	}
	var asJSON bool
	show := &cobra.Command{
		Use:   "show",
		Short: "print every setting, and where it comes from",
		Args:  exactly(0, "none"),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(c.configOptions())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.caller.Stdout, cfg.Show())
			}
			t := newTable(c.caller.Stdout, "KEY", "VALUE", "FROM")
			for _, s := range cfg.Show() {
				t.row(s.Key, s.Value, s.Origin)
			}
			return t.flush()
		},
	}
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "tell everything that is wrong with it",
		Args:  someOf(0, 1, "one FILE or none"),
		RunE: func(_ *cobra.Command, args []string) error {
			opts := c.configOptions()
			if len(args) == 1 {
				opts.File = args[0]
			}
			_, err := config.Load(opts)
			if problems := config.Problems(nil); errors.As(err, &problems) {
				c.report(err)
				return exitStatus(statusProblems)
			}
			return err
		},
	}
	cmd.AddCommand(show, check, c.configImportCommand())
	return cmd
}

func (c *command) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "tell which version this is",
		Args:  exactly(0, "none"),
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			if asJSON {
				return printJSON(c.caller.Stdout, v)
			}
			_, err := fmt.Fprintf(c.caller.Stdout, "caisson %s\ncommit %s\n%s\n%s/%s\n", v.Version, v.Commit, v.Go, v.OS, v.Arch)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// attendCommand is how keepers and other commands have a task attended to. It
// runs without a terminal and without anybody who reads what it says.
func (c *command) attendCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "attend ID",
		Short:  "do what is to be done for a task until its program runs",
		Hidden: true,
		Args:   exactly(1, "one ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := c.openQuietly(cmd.Context())
			if err != nil {
				return err
			}
			return host.Executor.Attend(context.WithoutCancel(cmd.Context()), args[0], true)
		},
	}
}
