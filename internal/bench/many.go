package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

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
	inits, err := memory("sandbox-init")
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

// sleep starts the sleeping tasks, and leaves them. Attendants stay for a
// moment with what they have started, so many are started at once.
func (b *bench) sleep(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(20)
	for range sleepers {
		id, err := b.submit(ctx, argv("sleep", "3600"), true)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error { return b.app.Executor.Attend(ctx, id, true) })
	}
	return group.Wait()
}

// adopting measures how long a process that knows nothing needs to have found
// all tasks again, with the pids of their programs, after the one that attended
// to them was killed -9.
func (b *bench) adopting(ctx context.Context) ([]row, error) {
	var took samples
	for range 3 {
		if err := b.killed(ctx); err != nil {
			return nil, err
		}
		start := time.Now()
		running, err := b.adopted(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
		if running < sleepers {
			return nil, fmt.Errorf("%d of %d tasks adopted", running, sleepers)
		}
		if err := b.clear(ctx); err != nil {
			return nil, err
		}
	}
	return []row{{fmt.Sprintf("adopting %d running tasks after kill -9", sleepers), took.String(), "-", "-", "1 s"}}, nil
}

// holder is the argument with which this program attends to sleeping tasks
// until it is killed.
const holder = "hold"

// killed has another process attend to sleeping tasks, and kills it.
func (b *bench) killed(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", holder, b.dir, b.caisson)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = io.ReadFull(out, make([]byte, 1))
	cmd.Process.Kill()
	cmd.Wait()
	return err
}

// hold is what the killed process does: it says that all tasks run by a byte.
func (b *bench) hold(ctx context.Context) error {
	var err error
	if b.app, err = b.open(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for range sleepers {
		id, err := b.submit(ctx, argv("sleep", "3600"), false)
		if err != nil {
			return err
		}
		group.Go(func() error { return b.app.Executor.Attend(ctx, id, false) })
	}
	for running := 0; running < sleepers; time.Sleep(50 * time.Millisecond) {
		list, err := b.app.Executor.List(ctx, false)
		if err != nil {
			return err
		}
		running = 0
		for _, t := range list {
			if t.State == caisson.StateRunning {
				running++
			}
		}
	}
	os.Stdout.WriteString("!")
	return group.Wait()
}

// clear removes every task.
func (b *bench) clear(ctx context.Context) error {
	list, err := b.app.Executor.List(ctx, true)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, t := range list {
		if t.Parent != "" {
			continue // it goes with that
		}
		group.Go(func() error { return b.app.Executor.Remove(ctx, t.ID, true) })
	}
	return group.Wait()
}

// adopted opens the state folder anew and counts the programs that it finds.
func (b *bench) adopted(ctx context.Context) (running int, err error) {
	fresh, err := b.open()
	if err != nil {
		return 0, err
	}
	defer fresh.Close()
	if err := fresh.Executor.Recover(ctx); err != nil {
		return 0, err
	}
	list, err := fresh.Executor.List(ctx, false)
	if err != nil {
		return 0, err
	}
	for _, t := range list {
		info, err := fresh.Executor.Inspect(ctx, t.ID)
		if err != nil {
			return 0, err
		}
		if info.State == caisson.StateRunning && info.PID > 0 {
			running++
		}
	}
	return running, nil
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
