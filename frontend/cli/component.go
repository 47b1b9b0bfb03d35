package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	componentrun "github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// componentCommand is the command that data components are run with.
func (c *command) componentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "component",
		Short: "run data components",
		Long:  "Run data components on tables and files of a storage, and what goes with that. See docs/components.md.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.componentRunCommand(), c.componentDebugCommand(), c.componentListCommand(),
		c.componentValidateCommand(), c.componentEncryptCommand())
	return cmd
}

// componentRun is the command that runs a component.
type componentRun struct {
	run
	ask       caisson.ComponentRun
	engine    string
	timeout   caisson.Duration
	variables []string
	to        string // the folder that archives are put into
	given     string // the storage's URL where it has a password
}

func (c *command) componentRunCommand() *cobra.Command {
	r := &componentRun{run: run{command: c}}
	cmd := &cobra.Command{
		Use:   "run [flags] DIR|FILE",
		Short: "run a component with a configuration",
		Long: "Run a component with the configuration in a file or a folder: map its input in,\n" +
			"run its processors and itself, map its output out, keep its state. The run is a\n" +
			"task: ps, logs, wait, stop and the others know it.\n\n" +
			"The exit status is 0 for success, 1 for an error of the configuration or the\n" +
			"data, 2 for one of the component, 124 when its time was up, 137 when it was out\n" +
			"of memory, and 125 when Caisson could not do its part.\n\n" +
			"Modes: run; debug, which also keeps the data folder of each step and stores\n" +
			"nothing else; input, which prepares the data folder and stops; sandbox, the same\n" +
			"with 50 rows of each table; dry-run, which prints what would be loaded; validate,\n" +
			"which only checks.",
		Example: "  caisson component run examples/components/population\n" +
			"  caisson component run --storage postgres:///data --row north ./extract\n" +
			"  caisson component run --mode dry-run ./extract\n" +
			"  caisson component run --action testConnection ./extract",
		Args: exactly(1, "one DIR or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return r.main(cmd.Context(), args[0]) },
	}
	r.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.ask.Mode, "mode", "", "`mode`: run, debug, input, sandbox, dry-run or validate")
	flags.StringVar(&r.ask.Action, "action", "", "run this synchronous `action` and print its answer")
	return cmd
}

func (c *command) componentDebugCommand() *cobra.Command {
	r := &componentRun{run: run{command: c}}
	cmd := &cobra.Command{
		Use:   "debug [flags] DIR|FILE",
		Short: "run a component and keep its data folder at every step",
		Long: "Run a component in debug mode: before each step, and at the end, the data folder\n" +
			"is kept as stage_0.zip, stage_1.zip and so on, and stage_output.zip, in the\n" +
			"storage's files, and with --to in a folder too. Secrets are taken out. Nothing is\n" +
			"mapped out and no state is kept; but the component really runs, with all that it\n" +
			"does to others.",
		Args: exactly(1, "one DIR or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.ask.Mode = caisson.ComponentDebug
			return r.main(cmd.Context(), args[0])
		},
	}
	r.register(cmd)
	return cmd
}

// register adds the flags that all runs have.
func (r *componentRun) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.ask.Storage, "storage", "", "`URL` or folder of tables and files; default: storage beside the configuration")
	flags.StringVar(&r.ask.Definition, "definition", "", "the component's definition: a `file`, or an id in the registry")
	flags.StringVar(&r.ask.Registry, "registry", "", "a `folder` of definitions; default: registry beside the configuration")
	flags.StringArrayVar(&r.ask.Rows, "row", nil, "run only the row with this `id`, even if it is disabled; may be repeated")
	flags.StringVar(&r.ask.Tag, "tag", "", "run the image with this `tag`")
	flags.StringArrayVar(&r.variables, "variable", nil, "set a variable, `NAME=VALUE`; may be repeated")
	flags.StringVar(&r.ask.VariableValues, "variable-values", "", "use the set of values with this `id`")
	flags.BoolVar(&r.ask.StrictMapping, "strict-mapping", false, "refuse what the component makes and nothing maps")
	flags.StringVar(&r.engine, "engine", "", "run the steps in this `engine`")
	durationVar(flags, &r.timeout, "timeout", "end the whole run after this `time`")
	flags.StringVar(&r.to, "to", "", "put kept data folders into this `folder`, too")
	flags.BoolVarP(&r.detach, "detach", "d", false, "print the task's id and return")
	flags.BoolVar(&r.json, "json", false, "print events, one JSON object a line, with the output among them")
	_ = cmd.RegisterFlagCompletionFunc("engine", r.completeEngines)
}

// modeValidate is the mode that runs nothing; it is no task's.
const modeValidate = "validate"

// main runs the component.
func (r *componentRun) main(ctx context.Context, config string) error {
	if err := r.parse(config); err != nil {
		return err
	}
	task := &caisson.Task{Component: &r.ask, Engine: r.engine, Timeout: r.timeout, Name: filepath.Base(r.ask.Config)}
	if !r.detach && isTerminal(file(r.caller.Stderr)) {
		r.progress.w = r.caller.Stderr
	}
	host, err := r.open(ctx)
	if err != nil {
		return err
	}
	base, err := os.Getwd()
	if err != nil {
		return err
	}
	sub := &executor.Submission{BaseDir: base, Detached: r.detach, Trusted: true}
	if plain, passwords := componentrun.StripURL(r.ask.Storage); len(passwords) > 0 {
		r.given, r.ask.Storage = r.ask.Storage, plain
		sub.Secrets = map[string][]byte{componentrun.StorageSecret: []byte(r.given)}
	}
	if err := r.hideVariables(sub); err != nil {
		return err
	}
	if r.ask.Mode == modeValidate {
		return r.faulty(r.validate(ctx, host, task, sub))
	}
	if r.detach {
		return r.faulty(r.submitDetached(ctx, host, task, sub))
	}
	return r.faulty(r.attend(ctx, host, task, sub))
}

// hideVariables takes the values of variables out of the task's document, which
// is kept on disk and shown: they may be what stands under # keys.
func (r *componentRun) hideVariables(sub *executor.Submission) error {
	if len(r.ask.Variables) == 0 {
		return nil
	}
	data, err := json.Marshal(r.ask.Variables)
	if err != nil {
		return err
	}
	if sub.Secrets == nil {
		sub.Secrets = make(map[string][]byte)
	}
	sub.Secrets[componentrun.VariablesSecret], r.ask.Variables = data, nil
	return nil
}

// parse checks the flags. Paths start at the current folder.
func (r *componentRun) parse(config string) error {
	abs, err := filepath.Abs(config)
	if err != nil {
		return err
	}
	r.ask.Config = abs
	for _, entry := range r.variables {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return usagef("component run: --variable %q: use NAME=VALUE", entry)
		}
		if r.ask.Variables == nil {
			r.ask.Variables = make(map[string]string)
		}
		r.ask.Variables[name] = value
	}
	if r.to != "" && r.detach {
		return usagef("component run: --to and --detach exclude each other: archives are fetched at the end")
	}
	return nil
}

// validate does all that comes before a run, and nothing of it.
func (r *componentRun) validate(ctx context.Context, host *Host, task *caisson.Task, sub *executor.Submission) error {
	r.ask.Mode = ""
	if _, err := host.Components.Accept(ctx, task, sub); err != nil {
		return err
	}
	_, err := fmt.Fprintln(r.caller.Stdout, "valid")
	return err
}

// attend runs the component in this process.
func (r *componentRun) attend(ctx context.Context, host *Host, task *caisson.Task, sub *executor.Submission) error {
	action := r.ask.Action != "" && r.ask.Action != "run"
	r.ran = func(result *caisson.Result) error {
		return r.finished(ctx, host, result, action)
	}
	r.quiet = action && !r.json
	return r.foreground(ctx, host, task, sub)
}

// finished tells how the run has ended, and brings what was asked for.
func (r *componentRun) finished(ctx context.Context, host *Host, result *caisson.Result, action bool) error {
	doc := &componentrun.Document{}
	if len(result.Component) > 0 {
		if err := json.Unmarshal(result.Component, doc); err != nil {
			return err
		}
	}
	if action && result.Success && !r.json {
		if err := r.answer(ctx, host, result.Task); err != nil {
			return err
		}
	}
	if err := r.fetch(ctx, host, doc); err != nil {
		return err
	}
	if doc.Error == nil || result.Error != nil || result.Success || !ended(result.Exit.Reason) {
		return r.ended(result)
	}
	where := ""
	if doc.Error.Row != "" {
		where = fmt.Sprintf("row %q: ", doc.Error.Row)
	}
	fmt.Fprintf(r.caller.Stderr, "caisson: %s error: %s%s\n", doc.Error.Type, where, oneLine(doc.Error.Message))
	return exitStatus(result.Status)
}

// ended reports whether a run ended by itself, or by its limits: then its own
// error says why. Otherwise somebody has ended it.
func ended(reason caisson.Reason) bool {
	switch reason {
	case caisson.ReasonExited, caisson.ReasonOOM, caisson.ReasonTimeout:
		return true
	}
	return false
}

// answer prints what a synchronous action has answered, byte for byte.
func (r *componentRun) answer(ctx context.Context, host *Host, id string) error {
	return host.Executor.Logs(ctx, id, executor.LogOptions{Stream: tasklog.Stdout}, func(rec executor.LogRecord) error {
		_, err := r.caller.Stdout.Write(rec.Data)
		return err
	})
}

// fetch copies kept data folders to the folder that was named.
func (r *componentRun) fetch(ctx context.Context, host *Host, doc *componentrun.Document) error {
	if r.to == "" || len(doc.Archives) == 0 {
		return nil
	}
	if err := os.MkdirAll(r.to, 0o755); err != nil {
		return err
	}
	store, err := host.Components.Storage(&r.ask, r.given, ".")
	if err != nil {
		return err
	}
	defer store.Close()
	for i, a := range doc.Archives {
		from, err := store.OpenFile(ctx, a.File)
		if err != nil {
			return err
		}
		name := filepath.Base(a.Name)
		if a.Row != "" {
			name = fmt.Sprintf("row_%d_%s", i, name)
		}
		err = errors.Join(writeTo(filepath.Join(r.to, name), from), from.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

func writeTo(path string, from io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// faulty has errors of a run that was not accepted end with the status that
// their fault has in a run.
func (r *componentRun) faulty(err error) error {
	var status exitStatus
	var sig interrupted
	if err == nil || errors.As(err, &status) || errors.As(err, &sig) || errors.Is(err, context.Canceled) {
		return err
	}
	var problems component.Problems
	status = component.ExitApplication
	if component.FaultOf(err) == component.UserFault {
		status = component.ExitUser
	}
	if errors.As(err, &problems) {
		for _, p := range problems {
			printProblem(r.caller.Stderr, p.Line, caisson.OpValidate, p.String())
		}
		return status
	}
	fmt.Fprintf(r.caller.Stderr, "caisson: %s\n", oneLine(message(err)))
	return status
}

func (c *command) componentListCommand() *cobra.Command {
	var registry string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "list the components of the registry",
		Args:  exactly(0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := c.openQuietly(cmd.Context())
			if err != nil {
				return err
			}
			var folders []string
			if registry != "" {
				folders = append(folders, registry)
			}
			list, err := host.Components.List(cmd.Context(), folders...)
			if asJSON {
				return errors.Join(printJSON(c.caller.Stdout, summaries(list)), err)
			}
			t := newTable(c.caller.Stdout, "ID", "TYPE", "NAME", "RUNS")
			for _, s := range summaries(list) {
				t.row(s.ID, s.Type, s.Name, s.Runs)
			}
			return errors.Join(t.flush(), err)
		},
	}
	cmd.Flags().StringVar(&registry, "registry", "", "of this `folder`, beside the operator's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// A summary is what list tells of a component.
type summary struct {
	ID      string   `json:"id"`
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Runs    string   `json:"runs"` // its image or its command
	Actions []string `json:"actions,omitempty"`
}

func summaries(list []*component.Definition) []summary {
	out := make([]summary, len(list))
	for i, d := range list {
		runs := strings.Join(d.Command, " ")
		switch {
		case d.Image != nil:
			runs = d.Image.Reference("")
		case d.Builder != nil:
			runs = d.Builder.Repository.URI
		}
		out[i] = summary{ID: d.ID, Type: d.Type, Name: d.Name, Runs: runs, Actions: d.SyncActions}
	}
	return out
}
