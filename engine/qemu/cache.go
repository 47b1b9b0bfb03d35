//go:build unix

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/internal/machine"
)

// What is in the engine's cache, each with the first letters of base.Of behind it.
const (
	basePrefix   = "base-"   // a base
	initrdPrefix = "initrd-" // what its guests begin with
	kernelPrefix = "kernel-" // a copy of a kernel that only root may read
	lockSuffix   = ".lock"   // held by who makes it, or tries it
)

const (
	// unused is how long what nobody uses is kept.
	unused = 30 * 24 * time.Hour
	// maxBase is more than a base takes, in bytes.
	maxBase = 1 << 20
	// lettersOf is how much of base.Of is in a name.
	lettersOf = 24
)

// cacheName is the name of a base's file, or of one that belongs to it.
func (o *Options) cacheName(prefix, of string) string {
	return filepath.Join(o.Cache, prefix+of[:lettersOf])
}

// openCache makes the cache if it is not there, and refuses one that somebody else
// could write to: guests boot what is in it.
func (o *Options) openCache() error {
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(o.Cache)
	if err != nil {
		return err
	}
	const others = 0o022
	if !info.IsDir() || info.Mode().Perm()&others != 0 || !mine(info) {
		return &caisson.Error{
			Op: caisson.OpProbe, Item: o.Cache, Kind: caisson.ErrDenied,
			Err: errors.New("guests boot what is in there, so it must be a folder of this user that nobody else can write to"),
		}
	}
	return nil
}

// readBase returns the base made of those sources, or nil.
func (o *Options) readBase(s *sources, under string) (*base, error) {
	path := o.cacheName(basePrefix, s.of)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBase || !mine(info) {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := new(base)
	if json.Unmarshal(data, b) != nil || b.Version != baseVersion || b.Of != s.of || b.QEMU == nil || b.Kernel == nil {
		return nil, nil
	}
	for _, file := range []string{b.Kernel.Image, b.Initrd} {
		if _, err := os.Stat(file); err != nil {
			return nil, nil
		}
	}
	if b.Under != under {
		b.Under, b.Boots, b.TSC = under, nil, machine.TSCKHz()
	}
	for _, file := range []string{path, b.Initrd, o.cacheName(kernelPrefix, s.of)} {
		touch(file, info.ModTime())
	}
	return b, nil
}

// mine reports whether a file is this user's.
func mine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// touch notes that a file is used, to the day.
func touch(path string, last time.Time) {
	if now := time.Now(); now.Sub(last) > 24*time.Hour {
		_ = os.Chtimes(path, now, now)
	}
}

// writeBase writes a base down.
func (o *Options) writeBase(b *base) error {
	b.mu.Lock()
	data, err := json.Marshal(b)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	return atomicfile.Write(o.cacheName(basePrefix, b.Of), append(data, '\n'), 0o600)
}

// lockBase has one process at a time make a base, or try it.
func (o *Options) lockBase(ctx context.Context, of string) (*lockfile.Lock, error) {
	return lockfile.Acquire(ctx, o.cacheName(basePrefix, of)+lockSuffix)
}

// makeBase makes a base of its sources: it asks QEMU what it has, and writes what
// guests begin with.
func (o *Options) makeBase(ctx context.Context, s *sources, under string) (*base, error) {
	b := &base{Version: baseVersion, Of: s.of, Under: under, TSC: machine.TSCKHz()}
	var err error
	if b.QEMU, err = machine.FindQEMU(ctx, s.program, s.kernel.Arch); err != nil {
		return nil, &remedied{err, "install qemu-system-x86 of version 5.2 or later, or name another QEMU as engine.qemu.program"}
	}
	modules, err := machine.OpenModules(s.kernel)
	if err != nil {
		return nil, err
	}
	plan, err := modules.Resolve(machine.Wanted...)
	if err != nil {
		return nil, err
	}
	b.Missing, b.LateDisks = plan.Missing, plan.LateDisks()
	if b.Kernel, err = o.readable(s); err != nil {
		return nil, err
	}
	b.Initrd = o.cacheName(initrdPrefix, s.of)
	if err := o.writeInitrd(b.Initrd, s, plan); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	o.collect(time.Now())
	return b, o.writeBase(b)
}

// readable returns the kernel, with a copy of its image where QEMU could not read
// that: distributions have kernels that only root may read.
func (o *Options) readable(s *sources) (*machine.Kernel, error) {
	k := *s.kernel
	info, err := os.Stat(k.Image)
	if err != nil {
		return nil, err
	}
	const everybody = 0o004
	if info.Mode().Perm()&everybody != 0 || os.Geteuid() != 0 {
		return &k, nil
	}
	data, err := os.ReadFile(k.Image)
	if err != nil {
		return nil, err
	}
	k.Image = o.cacheName(kernelPrefix, s.of)
	return &k, atomicfile.Write(k.Image, data, 0o644)
}

// writeInitrd writes the initramfs with the agent and the modules.
func (o *Options) writeInitrd(path string, s *sources, plan *machine.Plan) (err error) {
	agent := path + ".agent"
	if err := s.agent(agent); err != nil {
		return err
	}
	defer os.Remove(agent)
	dir, err := os.OpenRoot(o.Cache)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Nobody else gets to the cache; a guest's QEMU is shown this file alone.
	f, err := atomicfile.CreateIn(dir, filepath.Base(path), 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	// Emulated processors take longer to unpack it than to read it.
	if _, err := (&machine.Initramfs{Init: agent, Modules: plan.Load, Raw: true}).WriteTo(f); err != nil {
		return err
	}
	return f.Commit()
}

// collect removes what was not used for long. What can't be removed stays.
func (o *Options) collect(now time.Time) {
	entries, err := os.ReadDir(o.Cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		ours := atomicfile.IsTemp(e.Name())
		for _, prefix := range []string{basePrefix, initrdPrefix, kernelPrefix} {
			ours = ours || strings.HasPrefix(e.Name(), prefix)
		}
		info, err := e.Info()
		if ours && err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > unused {
			_ = os.Remove(filepath.Join(o.Cache, e.Name()))
		}
	}
}
