package kept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/lockfile"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// probeTime bounds the sandbox of a probe, which takes some 30 ms.
const probeTime = 10 * time.Second

// A probe's sandbox has a folder of this prefix in the runtime folder, with a
// lock that is held as long as the probe goes on: nobody else knows of it.
const (
	probePrefix = "probe-"
	probeLock   = "lock"
)

// A Trial is the sandbox of a probe, with its program running.
type Trial struct{ s *sandbox }

// Try makes the sandbox of a probe by create, starts it, has look look around
// in it, and destroys it. It returns what of the sandbox works. The spec that
// create is given has a program of the shell that runs long enough.
func (b *Sandboxes) Try(
	ctx context.Context,
	create func(context.Context, *engine.Spec) (engine.Sandbox, error),
	look func(context.Context, *Trial) error,
) (works Works, err error) {
	return b.TryProgram(ctx, &Trying{
		Waits: []string{"/bin/sh", "-c", "exec sleep 60"}, Ends: []string{"/bin/sh", "-c", ":"}, Limit: probeTime,
	}, create, look)
}

// Trying says what the sandbox of a probe runs, where that is not the host's shell.
type Trying struct {
	Waits []string // runs long enough
	Ends  []string // ends at once, successfully
	// Limit is how long all of it may take.
	Limit time.Duration
}

// TryProgram is Try with other programs.
func (b *Sandboxes) TryProgram(
	ctx context.Context, t *Trying,
	create func(context.Context, *engine.Spec) (engine.Sandbox, error),
	look func(context.Context, *Trial) error,
) (works Works, err error) {
	return b.try(ctx, t.Limit, t.Waits, create, func(ctx context.Context, s *sandbox) error {
		if err := look(ctx, &Trial{s}); err != nil {
			return err
		}
		works.Displays = s.showable(ctx)
		works.Pause = s.pause(ctx) == nil && s.resume(ctx) == nil
		works.Keep = s.rec.Kept && s.enteredAfterEnd(ctx, t.Ends)
		return nil
	}, &works)
}

// enteredAfterEnd kills the program and reports whether another one runs in the
// sandbox after that.
func (s *sandbox) enteredAfterEnd(ctx context.Context, args []string) bool {
	p := &process{s}
	if p.Stop(ctx, engine.Stop{Reason: caisson.ReasonKilled}) != nil {
		return false
	}
	if _, err := p.Wait(ctx); err != nil {
		return false
	}
	_, err := (&Trial{s}).Run(ctx, args...)
	return err == nil
}

// TryWith is Try of a program that ends by itself, successfully.
func (b *Sandboxes) TryWith(
	ctx context.Context, args []string, create func(context.Context, *engine.Spec) (engine.Sandbox, error),
) (works Works, err error) {
	log := ""
	noting := func(ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
		log = spec.Log
		return create(ctx, spec)
	}
	return b.try(ctx, probeTime, args, noting, func(ctx context.Context, s *sandbox) error {
		exit, err := (&process{s}).Wait(ctx)
		if err != nil || exit.Status() == 0 {
			return err
		}
		said := exit.Message
		if said == "" {
			said = tasklog.LastLine(log, tasklog.Stderr)
		}
		return errors.New(strings.TrimSuffix(fmt.Sprintf("its program ended with status %d: %s", exit.Status(), said), ": "))
	}, &works)
}

// try makes the sandbox of a probe, starts it, and has see look at it.
func (b *Sandboxes) try(
	ctx context.Context, limit time.Duration, args []string, create func(context.Context, *engine.Spec) (engine.Sandbox, error),
	see func(context.Context, *sandbox) error, works *Works,
) (_ Works, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp(b.opts.Runtime, probePrefix)
	if err != nil {
		return *works, err
	}
	defer os.RemoveAll(dir)
	lock, err := lockfile.Try(filepath.Join(dir, probeLock))
	if err != nil {
		return *works, err
	}
	defer lock.Release()
	spec := &engine.Spec{
		ID: filepath.Base(dir), Dir: dir, Log: filepath.Join(dir, "log"), Step: "probe",
		Args: args, Timeout: caisson.Duration(time.Minute + limit),
	}
	box, err := create(ctx, spec)
	if err != nil {
		return *works, late(ctx, limit, err)
	}
	s := base(box)
	if _, err = s.Start(ctx); err == nil {
		err = see(ctx, s)
	}
	if err == nil {
		_, statsErr := s.stats(ctx)
		works.Stats = statsErr == nil
	}
	return *works, late(ctx, limit, errors.Join(err, s.Destroy(context.WithoutCancel(ctx))))
}

// Run runs a program beside the first one, in a terminal, and returns what it
// printed: at most 64 KiB of a program that has succeeded.
func (t *Trial) Run(ctx context.Context, args ...string) ([]byte, error) {
	session, err := t.s.exec(ctx, &engine.ExecSpec{Args: args, Terminal: true})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	said, readErr := io.ReadAll(io.LimitReader(session.Stdout(), 64<<10))
	exit, err := session.Wait(ctx)
	session.Close()
	if err := errors.Join(readErr, err); err != nil {
		return nil, err
	}
	if exit.Status() != 0 {
		return nil, fmt.Errorf("a program in the sandbox ended with status %d: %s", exit.Status(), exit.Message)
	}
	return said, nil
}

// late says so where the time was up.
func late(ctx context.Context, limit time.Duration, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("a sandbox did not work within %s: %w", limit, err)
	}
	return err
}

// probeScript prints what the program can see of its own isolation. It uses
// nothing that a minimal host could lack.
const probeScript = `while read -r line; do echo "$line"; done </proc/self/status
for ns in mnt pid ipc uts net user; do echo "ns $ns $(readlink /proc/self/ns/$ns)"; done
for d in /home /root /var; do [ ! -e $d ] || echo "sees $d"; done
[ ! -t 0 ] || echo "terminal"`

// Look prints, by the shell of the sandbox, what a program sees of its own
// isolation. It reports whether programs can have terminals, and what there is
// for Verify to read.
func (t *Trial) Look(ctx context.Context) (said []byte, terminal bool, err error) {
	said, err = t.Run(ctx, "/bin/sh", "-c", probeScript)
	return said, bytes.Contains(said, []byte("terminal")), err
}

// Verify reads what Look has printed and names everything that is weaker than
// full isolation.
func Verify(said []byte) error { return verify(said, hostNamespaces()) }

// hostNamespaces returns the names of this process's own namespaces.
func hostNamespaces() map[string]string {
	names := map[string]string{}
	for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net", "user"} {
		names[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	return names
}

// verify reads what the script has printed and names everything that is
// weaker than full isolation.
func verify(said []byte, outside map[string]string) error {
	var weak []error
	want := map[string]string{
		"CapInh:": "0000000000000000", "CapPrm:": "0000000000000000", "CapEff:": "0000000000000000",
		"CapBnd:": "0000000000000000", "CapAmb:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2",
	}
	unseen := len(want) + len(outside)
	for line := range strings.Lines(string(said)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "sees":
			weak = append(weak, fmt.Errorf("the program sees %s", fields[1]))
		case len(fields) == 2 && want[fields[0]] != "":
			unseen--
			if fields[1] != want[fields[0]] {
				weak = append(weak, fmt.Errorf("the program has %s %s, not %s", fields[0], fields[1], want[fields[0]]))
			}
		case len(fields) == 3 && fields[0] == "ns":
			unseen--
			if fields[2] == outside[fields[1]] {
				weak = append(weak, fmt.Errorf("the program shares the host's %s namespace", fields[1]))
			}
		}
	}
	if unseen > 0 && len(weak) == 0 {
		weak = append(weak, fmt.Errorf("the program did not tell about its isolation"))
	}
	return errors.Join(weak...)
}
