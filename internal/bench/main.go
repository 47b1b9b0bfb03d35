// Command bench prints the figures of DESIGN.md, section 11, that this machine
// can measure, each beside its budget and, where there is one, as a ratio to a
// peer that was measured in the same run, in turn with it. It judges nothing:
// machines are shared and noisy.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"

	"github.com/caissonrun/caisson"
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
	size := caisson.Bytes(1 << 30)
	flag.TextVar(&size, "size", size, "how large the table of the components' part is, and the file of the gateways'")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [-size SIZE] [PART...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	work := func(ctx context.Context) error { return run(ctx, int64(size), flag.Args()) }
	if flag.NArg() == 3 && flag.Arg(0) == holder {
		work = (&bench{dir: flag.Arg(1), caisson: flag.Arg(2)}).hold
	}
	if flag.NArg() == 4 && flag.Arg(0) == alone {
		work = func(ctx context.Context) error { return runModule(ctx, flag.Arg(1), flag.Arg(2), flag.Arg(3)) }
	}
	if err := work(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run measures the parts that are named, or all.
func run(ctx context.Context, size int64, only []string) error {
	b, err := newBench()
	if err != nil {
		return err
	}
	defer b.close()
	b.size = size

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
		{"modules", b.modules},
		{"components", b.components},
		{"gateways", b.gateways},
		{"machines", b.machines},
	}
	table := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "WHAT\tFIGURE\tPEER\tRATIO\tBUDGET")
	for _, part := range parts {
		if len(only) > 0 && !slices.Contains(only, part.name) {
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
