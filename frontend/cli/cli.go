// Package cli is the command line: it translates arguments to tasks and calls
// of the executor, and what comes back to text, JSON and exit statuses. There
// is no daemon: each command works on the state folder and talks to keepers
// by itself. docs/cli.md describes every command.
//
// The exit status of run, wait and exec is the program's, see
// [caisson.Exit.Status]. What Caisson itself could not do is 125 in every
// command, with one line on stderr: "caisson: what: item: why".
package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/mapping"
	componentrun "github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/image"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/mount/volume"
)

// A Caller is who calls a command: one process's arguments and surroundings.
type Caller struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Environ []string // NAME=value
	// Sections are those of the configuration that only this program knows, see
	// config.Options.
	Sections map[string]*config.Section
	// Open wires the parts that commands work on. It is called at most once,
	// and only by commands that need them.
	Open func(ctx context.Context, setup *Setup) (*Host, error)
}

// A Setup is what the command line says about the parts to be wired.
type Setup struct {
	Config *config.Config
	Logger *slog.Logger // never nil
	// Attend are the arguments, behind a program, that make it an attendant
	// with the same configuration; the task's id is appended.
	Attend []string
	// Fill are those that make it fill a warm pool; the pool's name is appended.
	Fill []string
	// Progress is told how far the staging of inputs is, as
	// executor.Options.Progress is.
	Progress func(task string, input int, done, total int64)
	// Pulled is told how much of a task's image is there, as
	// executor.Options.Pulled is.
	Pulled func(task, ref string, p image.Progress)
	// Moved is told how far tables and files of component runs are.
	Moved func(task string, p mapping.Progress)
	// AttendEnv are the variables, NAME=value, that attendants need for that.
	AttendEnv []string
}

// A Host is what commands work on.
type Host struct {
	Executor *executor.Executor
	Volumes  *volume.Store
	Images   *image.Store
	// Components runs data components.
	Components *componentrun.Runner
	// Engines are the names of all engines, in order of preference.
	Engines []string
	// All are the engines themselves, for selftest.
	All []engine.Engine
	// Close releases the host; tasks run on.
	Close func() error
}

// Main runs one command line and returns the exit status. Signals that ask
// the program to end are handled by Main; ctx bounds the whole.
func Main(ctx context.Context, caller *Caller) int {
	c := &command{caller: caller, env: environ(caller.Environ)}
	root := c.root()
	root.SetArgs(caller.Args)
	root.SetIn(caller.Stdin)
	root.SetOut(caller.Stdout)
	root.SetErr(caller.Stderr)
	err := root.ExecuteContext(ctx)
	if closeErr := c.close(); err == nil {
		err = closeErr
	}
	return c.report(err)
}

// command is one call of a command: what all of them share.
type command struct {
	caller   *Caller
	env      map[string]string
	settings settings
	host     *Host
	progress progressLine
}

// settings are the flags that every command has.
type settings struct {
	config   string // the configuration file; empty: the usual places
	state    string // the state folder; empty: as configured
	logLevel string // empty: nothing is logged
	dir      string // that relative paths of settings start from; empty: the current one
}

// root returns the tree of all commands.
func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "caisson",
		Short: "run tasks in sandboxes",
		Long: "Caisson makes a sandbox, feeds it its data, runs one task in it, brings back\n" +
			"what the task made, and leaves nothing behind.",
		Args:          cobra.ArbitraryArgs,
		RunE:          helpOrUnknown,
		SilenceErrors: true,
		// As many letters may be wrong in a command for it to be suggested.
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		DisableAutoGenTag:          true,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.settings.config, "config", "", "read the configuration from this `file`")
	flags.StringVar(&c.settings.state, "state", "", "keep tasks in this `folder`")
	flags.StringVar(&c.settings.logLevel, "log-level", "", "log to stderr from this `level` on: debug, info, warn or error")
	flags.StringVar(&c.settings.dir, "dir", "", "")
	_ = flags.MarkHidden("dir")
	root.SetFlagErrorFunc(usageError)
	root.SetHelpCommand(helpCommand())
	root.AddGroup(
		&cobra.Group{ID: groupTask, Title: "Run and end tasks:"},
		&cobra.Group{ID: groupLook, Title: "Look at tasks:"},
		&cobra.Group{ID: groupInside, Title: "Reach into a sandbox:"},
		&cobra.Group{ID: groupHost, Title: "This host:"},
	)
	c.addCommands(root)
	return root
}

// helpOrUnknown is what the program does without a command that it knows.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := "see caisson --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%q: no such command; %s", args[0], hint)
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "explain a command",
		GroupID: groupHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return helpOrUnknown(cmd.Root(), args)
			}
			return found.Help()
		},
	}
}

// The groups of commands in the help text.
const (
	groupTask   = "task"
	groupLook   = "look"
	groupInside = "inside"
	groupHost   = "host"
)

func (c *command) addCommands(root *cobra.Command) {
	add := func(group string, list ...*cobra.Command) {
		for _, cmd := range list {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add(groupTask, c.runCommand(), c.componentCommand(), c.waitCommand(), c.stopCommand(), c.killCommand(),
		c.abortCommand(), c.signalCommand(), c.pauseCommand(), c.resumeCommand(),
		c.forkCommand(), c.removeCommand())
	add(groupLook, c.psCommand(), c.inspectCommand(), c.logsCommand(), c.eventsCommand(), c.statsCommand())
	add(groupInside, c.execCommand(), c.copyCommand(), c.displayCommand(), c.screenshotCommand())
	add(groupHost, c.enginesCommand(), c.imageCommand(), c.vmCommand(), c.warmCommand(), c.volumeCommand(), c.validateCommand(), c.schemaCommand(),
		c.configCommand(), c.selftestCommand(), c.completionCommand(), c.versionCommand())
	root.AddCommand(c.attendCommand())
}

// open returns the host, and looks after tasks that nobody attends to, so that
// what an earlier program left undone is under way whatever the command.
func (c *command) open(ctx context.Context) (*Host, error) {
	host, err := c.openQuietly(ctx)
	if err != nil {
		return nil, err
	}
	if err := host.Executor.Recover(ctx); err != nil {
		return nil, err
	}
	return host, nil
}

// openQuietly returns the host without touching any task.
func (c *command) openQuietly(ctx context.Context) (*Host, error) {
	if c.host != nil {
		return c.host, nil
	}
	cfg, err := config.Load(c.configOptions())
	if err != nil {
		return nil, err
	}
	logger, err := c.logger()
	if err != nil {
		return nil, err
	}
	host, err := c.caller.Open(ctx, &Setup{
		Config: cfg, Logger: logger,
		Attend: append(c.sameArgs(cfg), "attend"), Fill: append(c.sameArgs(cfg), "warm", "fill"), AttendEnv: c.attendEnv(cfg), Progress: c.progress.update, Pulled: c.progress.pulled,
		Moved: c.progress.moved,
	})
	if err != nil {
		return nil, err
	}
	c.host = host
	return host, nil
}

func (c *command) close() error {
	if c.host == nil || c.host.Close == nil {
		return nil
	}
	return c.host.Close()
}

// configOptions says where the configuration comes from.
func (c *command) configOptions() *config.Options {
	opts := &config.Options{File: c.settings.config, Environ: c.caller.Environ, Sections: c.caller.Sections, Flags: map[string]string{}, Dir: c.settings.dir}
	if c.settings.state != "" {
		opts.Flags["state"] = c.settings.state
	}
	return opts
}

// sameArgs returns the arguments of another command that reads the same
// configuration as this command, from wherever it is started.
func (c *command) sameArgs(cfg *config.Config) []string {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	return []string{"--state", cfg.State, "--config", cfg.FileList(), "--dir", dir}
}

// attendEnv returns the caller's variables that are settings.
func (c *command) attendEnv(cfg *config.Config) []string {
	env := []string{}
	for _, s := range cfg.Show() {
		if value, ok := c.env[s.Origin]; ok {
			env = append(env, s.Origin+"="+value)
		}
	}
	return env
}

func (c *command) logger() (*slog.Logger, error) {
	if c.settings.logLevel == "" {
		return slog.New(slog.DiscardHandler), nil
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.settings.logLevel)); err != nil {
		return nil, usagef("--log-level %q: use debug, info, warn or error", c.settings.logLevel)
	}
	return slog.New(slog.NewTextHandler(c.caller.Stderr, &slog.HandlerOptions{Level: level})), nil
}

// task returns the full id of the task that arg, a unique beginning of one,
// names.
func (h *Host) task(ctx context.Context, arg string) (string, error) {
	if caisson.CheckTaskID(arg) == nil {
		return arg, nil
	}
	info, err := h.Executor.Inspect(ctx, arg)
	if err != nil {
		return "", err
	}
	return info.ID, nil
}

// environ returns the environment as a map; of doubles the last one counts.
func environ(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, entry := range list {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

// file returns w or r as a file where it is one, for what only files can do.
func file(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}
