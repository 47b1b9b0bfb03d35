package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caissonrun/caisson"
)

const stagedBytes = 1 << 30

// staging measures how long a file of 1 GB takes to get in: without a digest
// and with one, beside cp and sha256sum of the same file.
func (b *bench) staging(ctx context.Context) ([]row, error) {
	file := filepath.Join(b.dir, "gigabyte")
	digest, err := writeFile(file, stagedBytes)
	if err != nil {
		return nil, err
	}
	var plain, checked samples
	staged := func(sum string, took *samples) func() error {
		return func() error {
			task := argv("/bin/true")
			task.Inputs = []caisson.Input{{From: "file:" + file, To: "in", SHA256: sum}}
			result, err := b.run(ctx, task)
			if err != nil {
				return err
			}
			for _, p := range result.Phases {
				if p.Name == string(caisson.OpStageIn) {
					*took = append(*took, p.Took.Std())
				}
			}
			return nil
		}
	}
	all, err := inTurn(3,
		staged("", &plain),
		staged(digest, &checked),
		func() error { return exec.CommandContext(ctx, "cp", file, file+".copy").Run() },
		func() error { return exec.CommandContext(ctx, "sha256sum", file).Run() },
	)
	if err != nil {
		return nil, err
	}
	return []row{
		{"staging in 1 GB", plain.String(), "cp: " + all[2].String(), ratio(plain, all[2]), "no copy, under 100 ms"},
		{"staging in 1 GB with its sha256", checked.String(), "sha256sum: " + all[3].String(), ratio(checked, all[3]), "hash speed"},
	}, nil
}

// writeFile writes a file of size bytes that do not repeat soon, and returns
// its digest.
func writeFile(path string, size int64) (digest string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i >> 7)
	}
	sum := sha256.New()
	w := io.MultiWriter(f, sum)
	for written := int64(0); written < size; written += int64(len(block)) {
		block[0]++
		if _, err := w.Write(block); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
