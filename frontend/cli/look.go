package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/executor"
)

func (c *command) psCommand() *cobra.Command {
	var all, asJSON, quiet bool
	cmd := &cobra.Command{
		Use:     "ps [-a]",
		Aliases: []string{"list"},
		Short:   "list tasks",
		Long: "List the tasks that have not ended, oldest first; with -a all that are kept,\n" +
			"and those that are parts of others, such as the steps of a component's run.",
		Args: exactly(0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			list, err := host.Executor.List(cmd.Context(), all)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(c.caller.Stdout, orEmpty(list))
			case quiet:
				for i := range list {
					// What is a part of another task can't be dealt with by itself.
					if list[i].Parent == "" {
						fmt.Fprintln(c.caller.Stdout, list[i].ID)
					}
				}
				return nil
			}
			return printTasks(c.caller.Stdout, list, time.Now())
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended, and parts of others")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "ids only, without parts of others")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// orEmpty makes an empty list of none, for JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func printTasks(w io.Writer, list []executor.Info, now time.Time) error {
	columns := []string{"ID", "NAME", "ENGINE", "STATE", "ATTEMPT", "ACCEPTED", "RESULT"}
	parts := slices.ContainsFunc(list, func(info executor.Info) bool { return info.Parent != "" })
	if parts {
		columns = append(columns, "PART OF")
	}
	t := newTable(w, columns...)
	for i := range list {
		info := &list[i]
		row := []string{
			info.ID, info.Name, info.Engine, stateText(info), attemptText(info), ago(now, info.AcceptedAt), resultText(info.Result),
		}
		if parts {
			row = append(row, partText(info))
		}
		t.row(row...)
	}
	return t.flush()
}

// partText says which task a task is a part of, and what that calls it.
func partText(info *executor.Info) string {
	if info.Parent == "" {
		return ""
	}
	return info.Parent + " " + info.Part
}

func attemptText(info *executor.Info) string {
	if info.Attempt == 0 {
		return ""
	}
	return fmt.Sprint(info.Attempt)
}

// stateText is the state, with the step and the progress while there are any.
func stateText(info *executor.Info) string {
	text := string(info.State)
	if left := time.Until(info.KeptUntil); left > 0 {
		text += " kept " + left.Truncate(time.Second).String()
	}
	if info.State == caisson.StateRunning && info.Step != "" && info.Step != "main" {
		text += " " + info.Step
	}
	if info.State != caisson.StateEnded && info.Progress > 0 {
		text += fmt.Sprintf(" %.0f%%", info.Progress*100)
	}
	return text
}

// resultText is a result in a word or two.
func resultText(r *caisson.Result) string {
	switch {
	case r == nil:
		return ""
	case r.Success:
		return "success"
	case r.Error != nil:
		return "error"
	case r.Exit.Reason == caisson.ReasonExited:
		return fmt.Sprintf("exit %d", r.Exit.Code)
	case r.Exit.Reason == caisson.ReasonSignaled:
		return "signal " + caisson.SignalName(r.Exit.Signal)
	}
	return string(r.Exit.Reason)
}

func (c *command) inspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "inspect ID...",
		Short:             "tell all that is known about a task",
		Long:              "Tell all that is known about tasks: state, result, usage, outputs and, with\n--json, the document that was accepted.",
		Args:              someOf(1, 1000, "ID..."),
		ValidArgsFunction: c.completeMany(anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			for i, arg := range args {
				info, err := host.Executor.Inspect(cmd.Context(), arg)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(c.caller.Stdout, info)
				} else {
					if i > 0 {
						fmt.Fprintln(c.caller.Stdout)
					}
					err = printInfo(c.caller.Stdout, info)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object for each task")
	return cmd
}

// printInfo prints a task as lines of a name and a value.
func printInfo(w io.Writer, info *executor.Info) error {
	t := linesTable(w)
	line := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	line("id", info.ID)
	line("name", info.Name)
	line("engine", info.Engine)
	line("state", stateText(info))
	line("attempt", attemptText(info))
	line("fork of", info.ForkOf)
	line("accepted", timeText(info.AcceptedAt))
	line("started", timeText(info.StartedAt))
	if info.PID > 0 {
		line("pid", fmt.Sprint(info.PID))
	}
	for _, n := range info.Networks {
		line("network", networkText(&n))
	}
	for _, b := range info.Blocked {
		line("blocked", blockedText(b))
	}
	line("part of", partText(info))
	line("command", commandText(info.Task))
	for _, p := range info.Parts {
		line("part", fmt.Sprintf("%s %s %s", p.ID, p.Key, p.State))
	}
	if r := info.Result; r != nil {
		printResult(line, r)
	}
	line("kept until", timeText(info.KeptUntil))
	line("folder", info.Dir)
	return t.flush()
}

// networkText is one network that a sandbox is attached to, on a line.
func networkText(n *engine.Network) string {
	text := n.Name
	if n.Interface != "" {
		text += " as " + n.Interface
	}
	if len(n.Addresses) > 0 {
		text += ", " + strings.Join(n.Addresses, " ")
	}
	for _, name := range slices.Sorted(maps.Keys(n.Args)) {
		text += fmt.Sprintf(", %s=%s", name, n.Args[name])
	}
	for _, p := range n.Ports {
		text += fmt.Sprintf(", %s to %d/%s", net.JoinHostPort(p.HostIP, strconv.Itoa(p.HostPort)), p.Port, p.Protocol)
	}
	if n.Config != "" {
		text += ", by " + n.Config
	}
	if n.Plugin != "" {
		text += " and " + n.Plugin
	}
	return text
}

func printResult(line func(name, value string), r *caisson.Result) {
	line("ended", timeText(r.EndedAt))
	line("result", resultText(r))
	line("status", fmt.Sprint(r.Status))
	line("reason", string(r.Exit.Reason))
	line("why", explain(r))
	line("wall", usageText(r.Usage.Wall))
	line("cpu", usageText(r.Usage.CPU))
	if r.Usage.PeakMemory > 0 {
		line("peak memory", size(r.Usage.PeakMemory))
	}
	if r.Exit.OOMKills > 0 {
		line("oom kills", fmt.Sprint(r.Exit.OOMKills))
	}
	for _, phase := range r.Phases {
		line("  "+phase.Name, took(phase.Took))
	}
	for _, b := range r.Blocked {
		line("blocked", blockedText(b))
	}
	line("value", r.Output)
	for _, out := range r.Outputs {
		line("output", outputText(&out))
	}
}

// outputText is one file or table that was stored.
func outputText(out *caisson.OutputFile) string {
	text := out.Path + " -> " + out.To
	if out.Size > 0 || out.SHA256 != "" {
		text += fmt.Sprintf(", %d bytes", out.Size)
	}
	if out.SHA256 != "" {
		text += ", sha256 " + out.SHA256
	}
	return text
}

func usageText(d caisson.Duration) string {
	if d == 0 {
		return ""
	}
	return took(d)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// commandText is what the task's main program is, on one line.
func commandText(task *caisson.Task) string {
	switch {
	case task == nil:
		return ""
	case task.Component != nil:
		return "component " + task.Component.Config
	case task.Run != "":
		return task.Run
	case len(task.Cmd) > 0 || len(task.Entrypoint) > 0:
		text, _ := json.Marshal(append(append([]string{}, task.Entrypoint...), task.Cmd...))
		return string(text)
	}
	return task.Module
}

func (c *command) eventsCommand() *cobra.Command {
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use:               "events [--follow] [ID]",
		Short:             "tell what happened to a task, or to all",
		Args:              someOf(0, 1, "one ID or none"),
		ValidArgsFunction: c.completeOne(anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.events(ctx, args, follow, asJSON))
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has ended")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one event a line")
	return cmd
}

func (c *command) events(ctx context.Context, args []string, follow, asJSON bool) error {
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	id := ""
	if len(args) == 1 {
		if id, err = host.task(ctx, args[0]); err != nil {
			return err
		}
	}
	show := (&eventPrinter{w: c.caller.Stdout}).print
	if !asJSON {
		show = func(e caisson.Event) error {
			_, err := fmt.Fprintln(c.caller.Stdout, eventText(e))
			return err
		}
	}
	return host.Executor.Events(ctx, id, follow, show)
}

// eventText is an event on one line.
func eventText(e caisson.Event) string {
	text := fmt.Sprintf("%s %s %-11s", e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), e.Task, e.Type)
	if e.Attempt > 0 {
		text += fmt.Sprintf(" attempt=%d", e.Attempt)
	}
	if e.Step != "" {
		text += " step=" + e.Step
	}
	if e.Progress > 0 {
		text += fmt.Sprintf(" progress=%.0f%%", e.Progress*100)
	}
	switch {
	case e.Type == caisson.EventEnded && e.Result != nil:
		text += fmt.Sprintf(" reason=%s status=%d", e.Result.Exit.Reason, e.Result.Status)
	case e.Exit != nil:
		text += fmt.Sprintf(" reason=%s status=%d", e.Exit.Reason, e.Exit.Status())
	}
	if e.Blocked != nil {
		text += " " + blockedText(*e.Blocked)
	}
	for _, more := range []string{e.Message, failureText(e.Error)} {
		if more != "" {
			text += " " + more
		}
	}
	return oneLine(text)
}

func failureText(f *caisson.Failure) string {
	if f == nil {
		return ""
	}
	return f.Message
}
