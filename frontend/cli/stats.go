package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func (c *command) statsCommand() *cobra.Command {
	var interval caisson.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "stats [--interval D] ID",
		Short:             "tell what a task uses",
		Long:              "Tell what the sandbox of a task that runs, or is kept, uses: once, or with --interval again and\nagain until the task has ended.",
		Args:              exactly(1, "one ID"),
		ValidArgsFunction: c.completeOne(enterable),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, release := untilSignal(cmd.Context())
			defer release()
			return orInterrupted(ctx, c.stats(ctx, args[0], interval.Std(), asJSON))
		},
	}
	durationVar(cmd.Flags(), &interval, "interval", "tell it again after this time")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func (c *command) stats(ctx context.Context, arg string, interval time.Duration, asJSON bool) error {
	host, err := c.open(ctx)
	if err != nil {
		return err
	}
	id, err := host.task(ctx, arg)
	if err != nil {
		return err
	}
	show := c.showStats(asJSON)
	for {
		stats, err := host.Executor.Stats(ctx, id)
		if err != nil {
			return err
		}
		if err := show(stats); err != nil || interval <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
		info, err := host.Executor.Inspect(ctx, id)
		if err != nil || info.State == caisson.StateEnded {
			return err
		}
	}
}

// showStats returns what prints one line of figures. Of cpu it tells the time
// used and, from the second line on, how many cores that was since the last.
func (c *command) showStats(asJSON bool) func(engine.Stats) error {
	if asJSON {
		return func(s engine.Stats) error { return json.NewEncoder(c.caller.Stdout).Encode(s) }
	}
	const form = "%-10s %-8s %-10s %-10s %-6s %-9s %s\n"
	var last engine.Stats
	return func(s engine.Stats) error {
		if last.Time.IsZero() {
			fmt.Fprintf(c.caller.Stdout, form, "CPU", "CORES", "MEMORY", "PEAK", "PIDS", "OOM KILLS", "THROTTLED")
		}
		cores := "-"
		if wall := s.Time.Sub(last.Time); !last.Time.IsZero() && wall > 0 && s.CPU >= last.CPU && last.CPU >= 0 {
			cores = fmt.Sprintf("%.2f", float64(s.CPU-last.CPU)/float64(wall))
		}
		last = s
		_, err := fmt.Fprintf(c.caller.Stdout, form, took(s.CPU), cores, size(s.Memory), size(s.PeakMemory),
			count(s.PIDs), count(s.OOMKills), took(s.Throttled))
		return err
	}
}

func count(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
