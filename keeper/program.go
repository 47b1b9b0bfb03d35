//go:build unix

package keeper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/version"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// embedded holds the small program for the system that this one was built
// for, if it was built before, and else a note alone.
//
//go:embed all:embedded
var embedded embed.FS

// Subcommand is the hidden subcommand with which the main binary is a keeper.
const Subcommand = "keeper"

// Program returns how a keeper is started: the small program that is part of
// this one, put into binDir if it is not there already; else a caisson-keeper
// of the same version beside this program's file; else this program's own
// subcommand, which needs more memory. binDir is made if need be, and must not
// be writable for others.
func Program(binDir string) (Command, error) {
	name := "embedded/" + wire.Argv0 + "-" + runtime.GOOS + "-" + runtime.GOARCH
	if program, err := embedded.Open(name); err == nil {
		path, err := extract(binDir, wire.Argv0, program)
		return Command{path}, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	beside := filepath.Join(filepath.Dir(self), wire.Argv0)
	if sameVersion(beside) {
		return Command{beside}, nil
	}
	if strings.HasSuffix(self, ".test") {
		// It would run the tests again.
		return nil, fail(caisson.ErrUnavailable, errors.New("a test's program can't be one: use keepertest.Build"))
	}
	stays, err := Self(binDir)
	return Command{stays, Subcommand}, err
}

// Self returns a path of this program that stays: its own or, where that goes
// away when this process ends, as with `go run`, that of a copy in binDir.
func Self(binDir string) (string, error) {
	self, err := os.Executable()
	if err != nil || !temporary(self) {
		return self, err
	}
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer program.Close()
	return extract(binDir, "caisson", program)
}

// headSize is how much of a program's begin tells it from all others, in
// bytes: the build id is in there, a digest of everything that the program was
// made of. Every command looks, so all of the program is not read.
const headSize = 16 << 10

// extract puts program into dir, under a name that tells what it is, and
// returns its path. What is there under that name is replaced if it differs.
func extract(dir, name string, program fs.File) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	info, err := program.Stat()
	if err != nil {
		return "", err
	}
	head, err := readHead(program)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(head, uint64(info.Size())))
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:8]))
	if there(path, info.Size(), head) {
		return path, nil
	}
	rest, err := io.ReadAll(program)
	if err != nil {
		return "", err
	}
	if err := atomicfile.Write(path, append(head, rest...), 0o755); err != nil {
		return "", fmt.Errorf("keeper %s: %w", path, err)
	}
	return path, nil
}

func readHead(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, headSize)) }

// there reports whether path is the program already. It was written at once
// and durably, so it is whole.
func there(path string, size int64, head []byte) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o755 || info.Size() != size {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	have, err := readHead(f)
	return err == nil && bytes.Equal(have, head)
}

// versionTime is how long a program may take to say its version.
const versionTime = 5 * time.Second

// sameVersion reports whether path is a keeper that was built from the same
// source as this program.
func sameVersion(path string) bool {
	if _, err := os.Stat(path); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTime)
	defer cancel()
	said, err := exec.CommandContext(ctx, path, "version").Output()
	return err == nil && string(said) == VersionText()
}

// VersionText returns what a keeper says about its version: its source, and
// the version of what it speaks.
func VersionText() string { return wire.VersionText(version.Get()) }

// temporary reports whether the program at path goes away, as that of `go run`
// does, or has gone.
func temporary(path string) bool {
	if strings.Contains(path, string(filepath.Separator)+"go-build") {
		return true
	}
	_, err := os.Stat(path)
	return err != nil
}
