// Command bench prints the figures of DESIGN.md, section 11, that this machine
// can measure, each beside its budget and, where there is one, as a ratio to a
// peer that was measured in the same run, in turn with it. It judges nothing:
// machines are shared and noisy.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"

	"github.com/caissonrun/caisson/app"
)

// A row is one line of what is printed.
type row struct {
	what   string
	figure string // median, with minimum where it is a time
	peer   string // what it is compared with, and its figure
	ratio  string
	budget string
}

func main() {
	app.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	work := run
	if len(os.Args) == 4 && os.Args[1] == holder {
		work = (&bench{dir: os.Args[2], caisson: os.Args[3]}).hold
	}
	if err := work(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	b, err := newBench()
	if err != nil {
		return err
	}
	defer b.close()

	parts := []struct {
		name string
		run  func(context.Context) ([]row, error)
	}{
		{"start", b.start},
		{"log path", b.logPath},
		{"keepers", b.keepers},
		{"adopting", b.adopting},
		{"staging", b.staging},
		{"containers", b.containerStarts},
		{"crowd", b.containerCrowd},
		{"container keepers", b.containerKeepers},
		{"unpacking", b.unpacking},
	}
	table := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "WHAT\tFIGURE\tPEER\tRATIO\tBUDGET")
	for _, part := range parts {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], part.name) {
			continue
		}
		rows, err := part.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		for _, r := range rows {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.what, r.figure, r.peer, r.ratio, r.budget)
		}
		fmt.Fprintf(os.Stderr, "bench: %s: measured\n", part.name)
	}
	return nil
}
