package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/selftest"
	"github.com/caissonrun/caisson/internal/state"
)

// selftestFlags are the flags of selftest.
type selftestFlags struct {
	engines  []string
	only     []string
	label    string
	json     bool
	markdown bool
	thorough bool
}

// thoroughRounds is how many times as often races are tried with --thorough.
const thoroughRounds = 30

func (c *command) selftestCommand() *cobra.Command {
	var f selftestFlags
	cmd := &cobra.Command{
		Use:   "selftest [--engine E] [--json | --markdown [RESULT...]]",
		Short: "try attacks on this host, and tell which are held",
		Long: "Try what hostile tasks, images and inputs have done to programs of this kind, on\n" +
			"each engine that works here, and tell what was held. Every attack is bounded: where\n" +
			"it is not held it shows that a thing could be done, and does no harm. Nothing of\n" +
			"it is left behind, and no task is touched. The exit status is 0 if every attack\n" +
			"that could be tried is held, 1 if one is not, 125 if trying went wrong.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.json && f.markdown {
				return usageError(cmd, errors.New("--json and --markdown are both given: choose one"))
			}
			if len(args) > 0 && !f.markdown {
				return usageError(cmd, fmt.Errorf("%q: results are read by --markdown alone", args[0]))
			}
			if len(args) > 0 {
				return c.mergeResults(args)
			}
			return c.selftest(cmd.Context(), &f)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.engines, "engine", nil, "try this `engine` alone; may be given again")
	flags.StringSliceVar(&f.only, "attack", nil, "try this attack alone, by `ID` or name; may be given again")
	flags.StringVar(&f.label, "label", "", "call the engine `NAME` in the results")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.BoolVar(&f.markdown, "markdown", false, "print the scoreboard in Markdown, of results that --json has printed or of a new run")
	flags.BoolVar(&f.thorough, "thorough", false, "try races for minutes instead of seconds")
	return cmd
}

// selftest tries everything and prints what came of it.
func (c *command) selftest(ctx context.Context, f *selftestFlags) error {
	ctx, release := untilSignal(ctx)
	defer release()
	reports, err := c.attacked(ctx, f)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	if f.label != "" {
		reports[0].Engine = f.label
	}
	switch {
	case f.json:
		err = printJSON(c.caller.Stdout, reports)
	case f.markdown:
		err = selftest.Markdown(c.caller.Stdout, reports)
	default:
		err = printReports(c.caller.Stdout, reports)
	}
	if status := selftest.Verdict(reports); err == nil && status != 0 {
		return exitStatus(status)
	}
	return err
}

// attacked runs the attacks in an installation of their own.
func (c *command) attacked(ctx context.Context, f *selftestFlags) (reports []selftest.Report, err error) {
	if err := selftest.Check(f.only); err != nil {
		return nil, err
	}
	cfg, err := config.Load(c.configOptions())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "caisson-selftest-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Who a program runs as must be able to pass, and to see nothing else.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	hidden := []string{cfg.State, cfg.Runtime}
	// The runtime folder stays: user ids of live sandboxes are told apart there,
	// and paths of sockets in it are short.
	cfg.State = filepath.Join(dir, "state")
	if err := ownProgram(cfg, dir); err != nil {
		return nil, err
	}
	// Attacks are many, and each machine that boots costs seconds.
	cfg.Engine.Qemu.Snapshot = true
	host, err := c.openOwn(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close(), forget(cfg)) }()
	engines, err := chosen(host.All, f.engines)
	if err != nil {
		return nil, err
	}
	opts := &selftest.Options{
		Dir: dir, Engines: engines, Executor: host.Executor, Only: f.only,
		Hidden: append(hidden, cfg.State), Programs: programs(cfg.State), Clean: clean,
	}
	if f.thorough {
		opts.Rounds = thoroughRounds
	}
	opts.Progress = c.attackProgress()
	defer func() {
		if opts.Progress != nil {
			opts.Progress("", "")
		}
	}()
	return selftest.Run(ctx, opts)
}

// ownProgram gives the engine of an operator's program one that attacks are tried
// with, in the place of the user's: that does what it does.
func ownProgram(cfg *config.Config, dir string) error {
	program, form := filepath.Join(dir, "program"), filepath.Join(dir, "program.schema.json")
	err := errors.Join(
		os.WriteFile(program, []byte(attack.PayloadProgram), 0o700), os.Chmod(program, 0o755),
		os.WriteFile(form, []byte(attack.PayloadSchema), 0o644),
	)
	script := &cfg.Engine.Script
	script.Program, script.Schema, script.Check, script.Files, script.Secrets, script.Network = []string{program}, form, nil, nil, nil, ""
	return err
}

// openOwn wires the parts for a configuration that is not the user's.
func (c *command) openOwn(ctx context.Context, cfg *config.Config) (*Host, error) {
	logger, err := c.logger()
	if err != nil {
		return nil, err
	}
	return c.caller.Open(ctx, &Setup{Config: cfg, Logger: logger, Attend: append(c.sameArgs(cfg), "attend"), AttendEnv: c.attendEnv(cfg)})
}

// forget removes what an installation that is no more has left in the runtime
// folder.
func forget(cfg *config.Config) error {
	folder, err := state.Open(cfg.State)
	if err != nil {
		return err
	}
	places, err := filepath.Glob(filepath.Join(cfg.Runtime, "*", folder.Short()))
	for _, place := range append(places, folder.Runtime(cfg.Runtime)) {
		err = errors.Join(err, os.RemoveAll(place))
	}
	return err
}

// chosen returns the engines of these names; all without names.
func chosen(all []engine.Engine, names []string) ([]engine.Engine, error) {
	if len(names) == 0 {
		return all, nil
	}
	var list []engine.Engine
	for _, name := range names {
		i := slices.IndexFunc(all, func(e engine.Engine) bool { return e.Name() == name })
		if i < 0 {
			return nil, &caisson.Error{
				Op: caisson.OpValidate, Item: fmt.Sprintf("engine %q", name), Kind: caisson.ErrNotFound,
				Err: errors.New("there is no such engine; see caisson engines"),
			}
		}
		list = append(list, all[i])
	}
	return list, nil
}

// programs returns what engines may start on this host: what lies in the state
// folder, this program, and the usual runtimes.
func programs(state string) []string {
	list, _ := filepath.Glob(filepath.Join(state, "bin", "*"))
	if self, err := os.Executable(); err == nil {
		list = append(list, self)
	}
	for _, name := range []string{"runc", "crun", "runsc"} {
		if path, err := exec.LookPath(name); err == nil {
			list = append(list, path)
		}
	}
	return list
}

// attackProgress shows on a terminal what is being tried.
func (c *command) attackProgress() func(engine, attack string) {
	w := file(c.caller.Stderr)
	if w == nil || !term.IsTerminal(int(w.Fd())) {
		return nil
	}
	return func(engine, attack string) {
		if attack == "" {
			io.WriteString(w, clearLine)
			return
		}
		fmt.Fprintf(w, "%scaisson: %s: %s", clearLine, oneLine(engine), oneLine(attack))
	}
}

// mergeResults prints the scoreboard of results that --json has printed. What
// is the same for every engine is in each of them, and counts once.
func (c *command) mergeResults(files []string) error {
	var all, host []selftest.Report
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var reports []selftest.Report
		if err := json.Unmarshal(data, &reports); err != nil {
			return &caisson.Error{Op: caisson.OpValidate, Item: name, Kind: caisson.ErrInvalid, Err: err}
		}
		for _, r := range reports {
			if r.Engine == selftest.Host {
				host = []selftest.Report{r}
				continue
			}
			all = append(all, r)
		}
	}
	return selftest.Markdown(c.caller.Stdout, append(all, host...))
}

// printReports prints a table for people, and below it why attacks came out
// otherwise than held.
func printReports(w io.Writer, reports []selftest.Report) error {
	titles := []string{"ID", "ATTACK"}
	for _, r := range reports {
		titles = append(titles, strings.ToUpper(r.Engine))
	}
	t := newTable(w, append(titles, "CVE")...)
	rows := selftest.Rows(reports)
	for _, row := range rows {
		cells := []string{row.ID, row.Name}
		for _, cell := range row.Cells {
			cells = append(cells, selftest.Cell(cell))
		}
		t.row(append(cells, strings.Join(row.CVE, " "))...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for i := range reports {
		if err := printReasons(w, &reports[i]); err != nil {
			return err
		}
	}
	return nil
}

// printReasons says for one engine what was not held, and what was not tried.
func printReasons(w io.Writer, report *selftest.Report) error {
	if report.Unusable != "" {
		if _, err := fmt.Fprintf(w, "%s: not tried: %s\n", clean(report.Engine), oneLine(report.Unusable)); err != nil {
			return err
		}
	}
	alike := make(map[string][]string) // attacks, by why they could not be tried
	var order []string
	for _, r := range report.Results {
		for _, why := range r.Why {
			if r.Status == attack.NotApplicable {
				if alike[why] == nil {
					order = append(order, why)
				}
				alike[why] = append(alike[why], r.Name)
				continue
			}
			if _, err := fmt.Fprintf(w, "%s: %s %s: %s: %s\n", clean(report.Engine), r.ID, r.Name, r.Status, oneLine(why)); err != nil {
				return err
			}
		}
	}
	for _, why := range order {
		if _, err := fmt.Fprintf(w, "%s: not applicable: %s: %s\n", clean(report.Engine), strings.Join(alike[why], ", "), oneLine(why)); err != nil {
			return err
		}
	}
	return nil
}
