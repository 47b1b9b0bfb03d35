package native

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
)

// probeTime bounds the sandbox of a probe, which takes some 30 ms.
const probeTime = 10 * time.Second

// A probe's sandbox has a folder of this prefix in the runtime folder, with a
// lock that is held as long as the probe goes on: nobody else knows of it.
const (
	probePrefix = "probe-"
	probeLock   = "lock"
)

// probeScript prints what the program can see of its own isolation. It uses
// nothing that a minimal host could lack.
const probeScript = `while read -r line; do echo "$line"; done </proc/self/status
for ns in mnt pid ipc uts net user; do echo "ns $ns $(readlink /proc/self/ns/$ns)"; done
for d in /home /root /var; do [ ! -e $d ] || echo "sees $d"; done
[ ! -t 0 ] || echo "terminal"`

// Probe implements engine.Engine. It runs a program in a sandbox.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	if err := e.open(ctx, caisson.OpProbe); err != nil {
		return engine.Features{}, err
	}
	f, err := e.survey(true)
	if err == nil {
		f.broken = e.try(ctx, f)
	}
	if ctx.Err() != nil {
		return engine.Features{}, ctx.Err()
	}
	if err != nil {
		f = &found{host: &host{}, broken: err}
	}
	e.found.Store(f)
	return e.opts.features(f, e.opts.Isolation), nil
}

// facts returns what the last Probe found. Before the first one it looks
// without trying: what does not work then shows when the sandbox is made.
func (e *Engine) facts() (*found, error) {
	if f := e.found.Load(); f != nil {
		return f, nil
	}
	f, err := e.survey(false)
	if err != nil {
		return nil, err
	}
	f.terminal, f.measured, f.pausable = true, f.support.cgroup.Usable, f.support.cgroup.Freeze
	e.found.Store(f)
	return f, nil
}

// survey looks at the parts that a sandbox is made of. Thorough also tries what
// takes milliseconds.
func (e *Engine) survey(thorough bool) (*found, error) {
	if err := os.MkdirAll(e.opts.Runtime, 0o700); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	h, err := look(e.opts.Paths)
	if err != nil {
		return nil, err
	}
	h.root = ownIDs(&e.opts)
	return &found{host: h, support: examine(e.opts.Runtime, thorough)}, nil
}

// try makes a sandbox, looks around in it, and notes what works.
func (e *Engine) try(ctx context.Context, f *found) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	dir, err := os.MkdirTemp(e.opts.Runtime, probePrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lock, err := lockfile.Try(filepath.Join(dir, probeLock))
	if err != nil {
		return err
	}
	defer lock.Release()
	spec := &engine.Spec{
		ID: filepath.Base(dir), Dir: dir, Log: filepath.Join(dir, "log"), Step: "probe",
		Args: []string{"/bin/sh", "-c", "exec sleep 60"}, Timeout: caisson.Duration(time.Minute),
	}
	box, err := e.create(ctx, spec, e.opts.Isolation, f)
	if err != nil {
		return late(ctx, err)
	}
	s := base(box)
	err = e.lookAround(ctx, f, s)
	return late(ctx, errors.Join(err, s.Destroy(context.WithoutCancel(ctx))))
}

// late says so where the time was up.
func late(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("a sandbox did not work within %s: %w", probeTime, err)
	}
	return err
}

// lookAround runs the script in a live sandbox and tries the rest on it.
func (e *Engine) lookAround(ctx context.Context, f *found, s *sandbox) error {
	if _, err := s.Start(ctx); err != nil {
		return err
	}
	session, err := s.exec(ctx, &engine.ExecSpec{Args: []string{"/bin/sh", "-c", probeScript}, Terminal: true})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	said, readErr := io.ReadAll(io.LimitReader(session.Stdout(), 64<<10))
	exit, err := session.Wait(ctx)
	session.Close()
	if err := errors.Join(readErr, err); err != nil {
		return err
	}
	if exit.Status() != 0 {
		return fmt.Errorf("a program in the sandbox ended with status %d: %s", exit.Status(), exit.Message)
	}
	f.terminal = bytes.Contains(said, []byte("terminal"))
	stats, err := s.stats(ctx)
	f.measured = err == nil && f.support.cgroup.Usable && stats.CPU >= 0
	f.pausable = s.pause(ctx) == nil && s.resume(ctx) == nil
	if e.opts.Isolation == None {
		return nil
	}
	return verify(said, hostNamespaces())
}

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
