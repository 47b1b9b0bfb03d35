package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine"
)

const (
	// machineRounds is how often machines are started in each way. On an emulated
	// processor a boot takes seconds.
	machineRounds = 3
	// idleGuests is how many machines wait while their memory is looked at.
	idleGuests = 3
	// copies is how many are made of one machine.
	copies = 10
	// savedMemory is that of machines with a saved state, also of those of the pool, of
	// which it does not count how long they take. Those that boot have nearly as much, so
	// that there is no state of them.
	savedMemory = 256 * caisson.MiB
	coldMemory  = savedMemory - caisson.MiB
	// machinePool is a warm pool of one machine.
	machinePool = "machines"
)

// machines measures tasks in virtual machines: booted, from a saved state, claimed
// from a warm pool, and copied while they run. Beside them is a QEMU with the same
// kernel on the same kind of processor, which boots, runs the same program and
// switches itself off.
func (b *bench) machines(ctx context.Context) ([]row, error) {
	bare, err := b.newBareMachine(ctx)
	var a absent
	if errors.As(err, &a) {
		return []row{{"machines", whyNot(err), "-", "-", "-"}}, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := b.newContainers(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := b.machineStarts(ctx, c, bare)
	if err != nil {
		return nil, err
	}
	for _, measure := range []func(context.Context, *containers, *bareMachine) ([]row, error){b.idleMachines, b.machineCopies} {
		more, err := measure(ctx, c, bare)
		if err := errors.Join(err, b.clear(ctx)); err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// machine is a task in a machine.
func (c *containers) machine(memory caisson.Bytes, saved bool, args ...string) *caisson.Task {
	task := c.ours("qemu", nil, args...)
	task.Limits.Memory = memory
	if saved {
		task.Options = json.RawMessage(`{"snapshot":true}`)
	}
	return task
}

// machineStarts measures a machine of /bin/true, its image cached.
func (b *bench) machineStarts(ctx context.Context, c *containers, bare *bareMachine) ([]row, error) {
	all, err := inTurn(
		machineRounds,
		func() error { return bare.run(ctx, "/bin/busybox true") },
		func() error { _, err := b.run(ctx, c.machine(coldMemory, false, "/bin/true")); return err },
		// The round that does not count saves the state.
		func() error { _, err := b.run(ctx, c.machine(savedMemory, true, "/bin/true")); return err },
		func() error { _, err := b.app.Executor.Fill(ctx, machinePool); return err },
		func() error { return b.claim(ctx, c.machine(savedMemory, false, "/bin/true")) },
	)
	if err != nil {
		return nil, err
	}
	peer, cold, saved, claimed := all[0], all[1], all[2], all[4]
	name := "bare QEMU, " + bare.kind + " with " + bare.accel + ", to its end: "
	return []row{
		{"qemu task of /bin/true, cold boot", cold.String(), name + peer.String(), ratio(cold, peer), "-"},
		{"qemu task of /bin/true, from a saved state", saved.String(), name + peer.String(), ratio(saved, peer), "-"},
		{"qemu task of /bin/true, from a saved state", saved.String(), "the cold boot: " + cold.String(), ratio(saved, cold), "0.1"},
		{"qemu task of /bin/true, claimed from a warm pool", claimed.String(), "the cold boot: " + cold.String(), ratio(claimed, cold), "-"},
	}, nil
}

// claim runs a task in the machine of the pool, and wants it to have been that one.
func (b *bench) claim(ctx context.Context, task *caisson.Task) error {
	if _, err := b.run(ctx, task); err != nil {
		return err
	}
	pools, err := b.app.Executor.Pools(ctx)
	if err != nil {
		return err
	}
	if len(pools) != 1 || pools[0].Ready != 0 {
		return fmt.Errorf("nothing was claimed: pools %+v", pools)
	}
	return nil
}

// idleMachines measures what machines take whose programs sleep.
func (b *bench) idleMachines(ctx context.Context, c *containers, bare *bareMachine) ([]row, error) {
	for range idleGuests {
		id, err := b.submit(ctx, c.machine(savedMemory, true, "sleep", "3600"), false)
		if err == nil {
			err = b.app.Executor.Attend(ctx, id, true)
		}
		if err != nil {
			return nil, err
		}
	}
	guests, err := memory(bare.program)
	if err != nil {
		return nil, err
	}
	if err := b.clear(ctx); err != nil {
		return nil, err
	}
	what := fmt.Sprintf("memory of an idle guest from a saved state (%d sleeping, limit %s)", len(guests), savedMemory)
	if len(guests) < idleGuests {
		return []row{{what, whyNot(absent("this user can't read the memory of what runs in namespaces")), "-", "-", "-"}}, nil
	}
	peer, err := bare.idle(ctx)
	if err != nil {
		return nil, err
	}
	return []row{{what, mib(mean(guests)), "bare QEMU: " + mib(peer), fmt.Sprintf("%.2f", mean(guests)/peer), "-"}}, nil
}

// machineCopies measures how long it takes until copies of a running machine run.
func (b *bench) machineCopies(ctx context.Context, c *containers, _ *bareMachine) ([]row, error) {
	task := c.machine(savedMemory, true, "sleep", "3600")
	task.Forkable = true
	id, err := b.submit(ctx, task, false)
	if err == nil {
		err = b.app.Executor.Attend(ctx, id, true)
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	ids, err := b.app.Executor.Fork(ctx, id, copies)
	made := time.Since(began)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, id := range ids {
		group.Go(func() error { return b.untilRuns(ctx, id) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := samples{time.Since(began)}
	what := fmt.Sprintf("fork of a running machine, until %d copies run", copies)
	return []row{{what, short(took.median()), "of that the copying: " + short(made), "-", "-"}}, nil
}

// untilRuns waits until a task's program runs.
func (b *bench) untilRuns(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		info, err := b.app.Executor.Inspect(ctx, id)
		if err != nil {
			return err
		}
		switch info.State {
		case caisson.StateRunning:
			return nil
		case caisson.StateEnded:
			return fmt.Errorf("copy %s has ended", id)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("copy %s: it is %s: %w", id, info.State, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A bareMachine is a QEMU that boots what tasks in machines boot, with nothing of
// Caisson's: its first process is busybox.
type bareMachine struct {
	program     string
	accel, kind string
	kernel      string
	dir         string
}

// newBareMachine asks engine qemu what works here. The first time it boots guests.
//
// Errors: absent, if nothing does.
func (b *bench) newBareMachine(ctx context.Context) (*bareMachine, error) {
	list, err := b.app.Executor.Engines(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.Name != "qemu" {
			continue
		}
		if !e.Features.Usable {
			why := e.Error
			if len(e.Features.Missing) > 0 {
				why = e.Features.Missing[0].Why
			}
			return nil, absent(why)
		}
		return b.bareMachine(ctx, e.Features.Version)
	}
	return nil, absent("there is no engine qemu")
}

// bareMachine is a machine as the version of the engine describes those of tasks:
// "QEMU 7.2.22, q35 with tcg, Linux 6.1.0".
func (b *bench) bareMachine(ctx context.Context, version string) (*bareMachine, error) {
	words := strings.Split(version, ", ")
	if len(words) != 3 {
		return nil, fmt.Errorf("engine qemu is of version %q", version)
	}
	m := &bareMachine{dir: filepath.Join(b.dir, "bare")}
	m.kind, m.accel, _ = strings.Cut(words[1], " with ")
	q, err := machine.FindQEMU(ctx, "", runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	m.program = q.Path
	k, err := machine.FindKernel(nil)
	if err != nil {
		return nil, err
	}
	m.kernel = k.Image
	return m, os.Mkdir(m.dir, 0o700)
}

// command is a QEMU whose guest runs a line of shell, and then switches itself off.
func (m *bareMachine) command(ctx context.Context, line string) (*exec.Cmd, error) {
	const pack = `mkdir -p root/bin && cp "$0" root/bin/busybox && printf '#!/bin/busybox sh\n%s\n/bin/busybox poweroff -f\n' "$1" >root/init &&
		chmod 755 root/init && cd root && find . | cpio -o -H newc --quiet >../initrd`
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	packing := exec.CommandContext(ctx, "sh", "-c", pack, busybox, line)
	packing.Dir = m.dir
	if out, err := packing.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initramfs: %w: %s", err, out)
	}
	cpu := "max"
	if m.accel == machine.KVM {
		cpu = "host"
	}
	return exec.CommandContext(
		ctx, m.program, "-nodefaults", "-no-user-config", "-no-reboot", "-machine", m.kind, "-accel", m.accel, "-cpu", cpu,
		"-smp", fmt.Sprint(min(runtime.NumCPU(), 2)), "-m", fmt.Sprintf("%dM", savedMemory/caisson.MiB+128), "-display", "none",
		"-kernel", m.kernel, "-initrd", filepath.Join(m.dir, "initrd"), "-append", "panic=-1 no_timer_check quiet",
	), nil
}

// run runs a machine to its end.
func (m *bareMachine) run(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd, err := m.command(ctx, line)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("bare QEMU: %w: %s", errors.Join(err, ctx.Err()), out)
	}
	return nil
}

// idle returns what a machine takes that has booted and sleeps, in KiB.
func (m *bareMachine) idle(ctx context.Context) (float64, error) {
	cmd, err := m.command(ctx, "/bin/busybox sleep 3600")
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	// It has booted when it takes no more.
	for last := 0.0; ; {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Second):
		}
		sizes, err := memory(m.program)
		if err != nil {
			return 0, err
		}
		if len(sizes) == 0 {
			return 0, errors.New("bare QEMU has ended")
		}
		now := mean(sizes)
		if now < last*1.01 {
			return now, nil
		}
		last = now
	}
}
