package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// logs is the command that prints a task's log.
type logs struct {
	*command
	options       executor.LogOptions
	stream, since string
	stamp, json   bool
}

func (c *command) logsCommand() *cobra.Command {
	l := &logs{command: c}
	cmd := &cobra.Command{
		Use:   "logs [-f] [flags] ID",
		Short: "print what a task has printed",
		Long: "Print a task's log: stdout to stdout and stderr to stderr, byte for byte. Lines\n" +
			"of Caisson's own begin with \"caisson: \" and go to stderr.",
		Args:              exactly(1, "one ID"),
		ValidArgsFunction: c.completeOne(anyState),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, l.run(ctx, args[0]))
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&l.options.Follow, "follow", "f", false, "go on until the task has ended")
	flags.StringVar(&l.stream, "stream", "", "only this `stream`: stdout, stderr or system")
	flags.StringVar(&l.since, "since", "", "only from this `time` on: RFC 3339, or a duration before now")
	flags.IntVarP(&l.options.Tail, "tail", "n", 0, "only the last `lines`")
	flags.IntVar(&l.options.Attempt, "attempt", 0, "of this attempt, the newest if left out")
	flags.StringVar(&l.options.Step, "step", "", "only of this `step`, such as main or pre-0")
	flags.BoolVarP(&l.stamp, "timestamps", "t", false, "put the time before each line")
	flags.BoolVar(&l.json, "json", false, "print JSON, one record a line, data in base64")
	return cmd
}

func (l *logs) run(ctx context.Context, arg string) error {
	if err := l.parse(time.Now()); err != nil {
		return err
	}
	host, err := l.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	out := newOutput(l.caller.Stdout, l.caller.Stderr)
	out.stamp = l.stamp
	write := out.write
	if l.json {
		events := &eventPrinter{w: l.caller.Stdout}
		write = func(rec executor.LogRecord) error { return events.print(outputEvent(id, rec)) }
	}
	return host.Executor.Logs(ctx, id, l.options, write)
}

// parse reads the flags that are not numbers.
func (l *logs) parse(now time.Time) error {
	if l.options.Tail < 0 || l.options.Attempt < 0 {
		return usagef("logs: --tail and --attempt count from 1")
	}
	var err error
	if l.options.Stream, err = parseStream(l.stream); err != nil {
		return err
	}
	l.options.Since, err = parseSince(l.since, now)
	return err
}

func parseStream(name string) (tasklog.Stream, error) {
	if name == "" {
		return 0, nil
	}
	for _, stream := range []tasklog.Stream{tasklog.Stdout, tasklog.Stderr, tasklog.System} {
		if stream.String() == name {
			return stream, nil
		}
	}
	return 0, usagef("logs: --stream %q: use stdout, stderr or system", name)
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := caisson.ParseDuration(text); err == nil {
		return now.Add(-d.Std()), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("logs: --since %q: use a time such as %s, or a duration such as 10m", text, fmt.Sprint(now.UTC().Format(time.RFC3339)))
}
