package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

const sleepers = 100

// keepers measures what sleeping tasks cost: the proportional memory of their
// keepers, and of keepers with the sandboxes' inits.
func (b *bench) keepers(ctx context.Context) ([]row, error) {
	if err := b.sleep(ctx); err != nil {
		return nil, err
	}
	keepers, err := memory("caisson-keeper")
	if err != nil {
		return nil, err
	}
	inits, err := memory("caisson-init")
	if err != nil {
		return nil, err
	}
	if len(keepers) < sleepers {
		return nil, fmt.Errorf("found %d keepers, want %d", len(keepers), sleepers)
	}
	var listed samples
	for range 5 {
		start := time.Now()
		if _, err := b.command("ps"); err != nil {
			return nil, err
		}
		listed = append(listed, time.Since(start))
	}
	keeper, init := mean(keepers), mean(inits)
	return []row{
		{fmt.Sprintf("memory of a keeper (%d sleeping)", len(keepers)), mib(keeper), "-", "-", "2 MB"},
		{"memory of a keeper with its init", mib(keeper + init), "-", "-", "3 MB"},
		{fmt.Sprintf("caisson ps beside %d sleeping", len(keepers)), listed.String(), "-", "-", "100 ms beside 500"},
	}, nil
}

// sleep starts the sleeping tasks, and leaves them.
func (b *bench) sleep(ctx context.Context) error {
	for range sleepers {
		id, err := b.submit(ctx, argv("sleep", "3600"), true)
		if err != nil {
			return err
		}
		if err := b.app.Executor.Attend(ctx, id, true); err != nil {
			return err
		}
	}
	return nil
}

// adopting measures how long a new process needs to know again all the tasks
// whose attendants are gone, with their pids. The peer is the same command
// before there is anything to adopt.
func (b *bench) adopting(ctx context.Context) ([]row, error) {
	exec.Command("pkill", "-KILL", "-x", "caisson").Run()
	empty := filepath.Join(b.dir, "empty")
	all, err := inTurn(5,
		func() error { return b.adopted() },
		func() error { return exec.CommandContext(ctx, b.caisson, "--state", empty, "ps").Run() },
	)
	if err != nil {
		return nil, err
	}
	return []row{{
		fmt.Sprintf("adopting %d running tasks", sleepers), all[0].String(),
		"with none: " + all[1].String(), ratio(all[0], all[1]), "1 s",
	}}, nil
}

func (b *bench) adopted() error {
	out, err := b.command("ps", "--json")
	if err != nil {
		return err
	}
	var list []struct {
		State caisson.State `json:"state"`
		PID   int           `json:"pid"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return err
	}
	running := 0
	for _, t := range list {
		if t.State == caisson.StateRunning && t.PID > 0 {
			running++
		}
	}
	if running < sleepers {
		return fmt.Errorf("%d of %d tasks adopted", running, sleepers)
	}
	return nil
}

// memory returns the proportional memory, in KiB, of every process whose first
// argument is name.
func memory(name string) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var sizes []int
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || strings.SplitN(string(line), "\x00", 2)[0] != name {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(path), "smaps_rollup"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(rollup)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				size, _ := strconv.Atoi(strings.Fields(rest)[0])
				sizes = append(sizes, size)
			}
		}
	}
	return sizes, nil
}

func mean(sizes []int) float64 {
	sum := 0
	for _, s := range sizes {
		sum += s
	}
	return float64(sum) / float64(max(len(sizes), 1))
}

func mib(kib float64) string { return fmt.Sprintf("%.2f MB", kib*1024/1e6) }
