package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
)

const logBytes = 512 << 20

// logPath measures how fast output gets into the log, with 50 secrets looked
// for in it: alone, and while a follower reads slowly. The peer writes the same
// bytes through a pipe to a file.
func (b *bench) logPath(ctx context.Context) ([]row, error) {
	lines := filepath.Join(b.dir, "lines")
	if err := writeLines(lines, 1<<20); err != nil {
		return nil, err
	}
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do cat in; i=$((i+1)); done`, logBytes>>20)
	task := func() *caisson.Task {
		t := &caisson.Task{
			Program: caisson.Program{Run: script},
			Inputs:  []caisson.Input{{From: "file:" + lines, To: "in"}},
			Secrets: map[string]caisson.Secret{},
		}
		for i := range 50 {
			t.Secrets[secretName(i)] = caisson.Secret{From: "env:" + secretName(i)}
		}
		return t
	}
	piped := filepath.Join(b.dir, "piped")
	peer := func() error {
		cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`(%s) | cat > %s`, script, piped))
		cmd.Dir = b.dir
		if err := os.WriteFile(filepath.Join(b.dir, "in"), mustRead(lines), 0o600); err != nil {
			return err
		}
		return cmd.Run()
	}
	var wall [2]samples
	all, err := inTurn(3,
		func() error { return b.logged(ctx, task(), false, &wall[0]) },
		func() error { return b.logged(ctx, task(), true, &wall[1]) },
		peer,
	)
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, 2)
	for i, what := range []string{"log path, 50 secrets", "log path, 50 secrets, slow follower"} {
		rows = append(rows, row{
			what, rate(logBytes, wall[i].median()),
			"sh | cat > file: " + rate(logBytes, all[2].median()), ratio(wall[i], all[2]), "at least 200 MB/s",
		})
	}
	return rows, nil
}

func secretName(i int) string { return fmt.Sprintf("TOKEN_%d", i) }

// logged runs a task that prints logBytes, and adds the time that its program
// took. A slow follower reads a record every ten milliseconds.
func (b *bench) logged(ctx context.Context, task *caisson.Task, slow bool, wall *samples) error {
	secrets := map[string][]byte{}
	for i := range 50 {
		secrets[secretName(i)] = fmt.Appendf(nil, "s3cr3t-value-%04d-%x", i, i*7919)
	}
	id, err := b.app.Executor.Submit(ctx, task, &executor.Submission{BaseDir: b.dir, Trusted: true, Secrets: secrets})
	if err != nil {
		return err
	}
	follow, stop := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() {
		if !slow {
			followed <- nil
			return
		}
		followed <- b.app.Executor.Logs(follow, id, executor.LogOptions{Follow: true}, func(executor.LogRecord) error {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-follow.Done():
			}
			return follow.Err()
		})
	}()
	defer func() { stop(); <-followed; b.app.Executor.Remove(context.WithoutCancel(ctx), id, true) }()
	if err := b.app.Executor.Attend(ctx, id, false); err != nil {
		return err
	}
	result, err := b.app.Executor.Wait(ctx, id)
	if err != nil {
		return err
	}
	if !result.Success {
		return fmt.Errorf("task %s: status %d: %s", id, result.Status, failure(result))
	}
	*wall = append(*wall, result.Exit.Usage.Wall.Std())
	return nil
}

// writeLines writes lines of text that hold no secret, but beginnings of some.
func writeLines(path string, size int) error {
	data := make([]byte, 0, size)
	for i := 0; len(data) < size; i++ {
		data = fmt.Appendf(data, "%08d a line of output as programs print it, s3cr3t-value-, and its end\n", i)
	}
	return os.WriteFile(path, data[:size], 0o600)
}

func mustRead(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return data
}
