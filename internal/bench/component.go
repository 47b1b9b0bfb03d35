package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/all"
)

// What the component's bench makes: the table that goes in, and the one that
// comes out.
const (
	benchInput  = "in.c-bench.big"
	benchOutput = "out.c-bench.big"
)

// components measures the run of a component that copies one table, from one
// storage: what is mapped in, the program, what is mapped out, beside what one
// would do by hand.
func (b *bench) components(ctx context.Context) ([]row, error) {
	table := filepath.Join(b.dir, "big.csv")
	if err := writeTable(table, b.size); err != nil {
		return nil, err
	}
	defer os.Remove(table)
	if err := b.writeComponent(); err != nil {
		return nil, err
	}
	rows, err := b.fileComponent(ctx, table)
	if err != nil {
		return nil, err
	}
	more, err := b.postgresComponent(ctx, table)
	return append(rows, more...), err
}

// writeTable writes CSV of about size bytes, as storages export it.
func writeTable(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	fmt.Fprintln(w, `"id","name","amount","note"`)
	var line []byte
	for id, written := int64(1), int64(0); written < size; id++ {
		line = append(strconv.AppendInt(append(line[:0], '"'), id, 10), `","customer `...)
		line = strconv.AppendInt(line, id*7919%100003, 10)
		line = strconv.AppendInt(append(line, `","`...), id*104729%1000000, 10)
		line = append(line, `","a note of some length, with a "" in it, as people write them"`+"\n"...)
		n, _ := w.Write(line)
		written += int64(n)
	}
	return w.Flush()
}

// writeComponent writes the component's definition and configuration.
func (b *bench) writeComponent() error {
	files := map[string]string{
		"component/registry/copy.yaml": `
id: bench.copy
type: application
name: copy
data:
  definition: {type: command, command: [cp, /data/in/tables/big.csv, /data/out/tables/big.csv]}
  memory: 2g
  network: none
`,
		"component/config.yaml": `
id: bench
component: bench.copy
configuration:
  storage:
    input: {tables: [{source: ` + benchInput + `, destination: big.csv}]}
    output: {tables: [{source: big.csv, destination: ` + benchOutput + `}]}
`,
	}
	for name, text := range files {
		file := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) runComponent(ctx context.Context, storage string) func() error {
	return func() error {
		_, err := b.run(ctx, &caisson.Task{Component: &caisson.ComponentRun{Config: "component", Storage: storage}})
		return err
	}
}

// fill loads the table into a storage.
func fill(ctx context.Context, url, table string) error {
	st, err := all.Open(url, nil)
	if err != nil {
		return err
	}
	defer st.Close()
	_, err = st.Load(ctx, &storage.Load{
		ID: "bench", Table: benchInput, Columns: []string{"id", "name", "amount", "note"},
		Slices: []storage.Slice{{Name: "big.csv", Skip: 1, Size: -1, Open: func() (io.ReadCloser, error) { return openRows(table) }}},
	})
	return err
}

// openRows opens a table after its header.
func openRows(table string) (io.ReadCloser, error) {
	f, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	header, err := bufio.NewReader(f).ReadString('\n')
	if err == nil {
		_, err = f.Seek(int64(len(header)), io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (b *bench) fileComponent(ctx context.Context, table string) ([]row, error) {
	dir := filepath.Join(b.dir, "storage")
	defer os.RemoveAll(dir)
	if err := fill(ctx, dir, table); err != nil {
		return nil, err
	}
	copied := filepath.Join(b.dir, "copy.csv")
	defer os.Remove(copied)
	times, err := inTurn(b.rounds(),
		b.runComponent(ctx, dir),
		func() error { return shell(ctx, `cp "$1" "$2" && sync "$2"`, table, copied) },
	)
	if err != nil {
		return nil, err
	}
	return []row{{
		"component, " + b.sizeText() + " in and out, files", times[0].String(), "cp+sync: " + times[1].String(), ratio(times[0], times[1]), "-",
	}}, nil
}

// postgresComponent does the same with PostgreSQL. By hand one would unload the
// table, copy the file, and load that.
func (b *bench) postgresComponent(ctx context.Context, table string) ([]row, error) {
	what := "component, " + b.sizeText() + " in and out, PostgreSQL"
	server := os.Getenv("CAISSON_TEST_POSTGRES")
	if server == "" {
		return []row{{what, absent("no PostgreSQL").Error(), "-", "-", "-"}}, nil
	}
	base := fmt.Sprintf("caisson_bench_%d", os.Getpid())
	if err := psql(ctx, server, "create database "+base); err != nil {
		return nil, err
	}
	defer psql(context.WithoutCancel(ctx), server, "drop database "+base+" with (force)")
	url := strings.Replace(server, "/caisson?", "/"+base+"?", 1)
	if err := fill(ctx, url, table); err != nil {
		return nil, err
	}
	if err := psql(ctx, url, "create table peer (id text, name text, amount text, note text)"); err != nil {
		return nil, err
	}
	unloaded, copied := filepath.Join(b.dir, "unloaded.csv"), filepath.Join(b.dir, "copy.csv")
	defer os.Remove(unloaded)
	defer os.Remove(copied)
	columns := "id, name, amount, note"
	times, err := inTurn(b.rounds(),
		b.runComponent(ctx, url),
		func() error {
			if err := psql(ctx, url, fmt.Sprintf(`\copy (select %s from "in.c-bench".big) to '%s' csv header force quote *`, columns, unloaded)); err != nil {
				return err
			}
			if err := shell(ctx, `cp "$1" "$2"`, unloaded, copied); err != nil {
				return err
			}
			return psql(ctx, url, "begin", "truncate peer", fmt.Sprintf(`\copy peer from '%s' csv header`, copied), "commit")
		},
	)
	if err != nil {
		return nil, err
	}
	return []row{{what, times[0].String(), `psql \copy, cp, \copy: ` + times[1].String(), ratio(times[0], times[1]), "-"}}, nil
}

// psql runs statements in one session.
func psql(ctx context.Context, url string, statements ...string) error {
	args := []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	if out, err := exec.CommandContext(ctx, "psql", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("psql %q: %w: %s", statements, err, out)
	}
	return nil
}

func shell(ctx context.Context, script string, args ...string) error {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-ec", script, "sh"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// rounds is how often what is as long as this is measured.
func (b *bench) rounds() int {
	if b.size >= 1<<30 {
		return 2
	}
	return 3
}

func (b *bench) sizeText() string { return caisson.Bytes(b.size).String() }
