package enginetest

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/mem"
)

func flaws() []flaw {
	return slices.Concat(flawsOfLife(), flawsOfSpecs(), flawsOfEnds(), flawsOfFiles(), flawsOfRecovery(), flawsOfGateways(), flawsOfDisplays())
}

func flawsOfLife() []flaw {
	return []flaw{
		{
			name: "a folder is left", find: "lifecycle/run", how: "left behind: file",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				if _, err := os.MkdirTemp("", "left-"); err != nil {
					return nil, err
				}
				return e.wrap(spec)(e.Engine.Create(ctx, spec))
			},
		},
		{
			name: "a goroutine is left", find: "lifecycle/run", how: "left behind: goroutine",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				go func() { time.Sleep(3 * time.Second) }()
				return e.wrap(spec)(e.Engine.Create(ctx, spec))
			},
		},
		{
			name: "a descriptor is left", find: "lifecycle/run", how: "left behind: descriptor",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				left, err := os.Open(spec.Dir)
				if err != nil {
					return nil, err
				}
				time.AfterFunc(3*time.Second, func() { left.Close() })
				return e.wrap(spec)(e.Engine.Create(ctx, spec))
			},
		},
		{
			name: "a process is left", find: "lifecycle/run", how: "left behind: process",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				if err := leaveProcess(3 * time.Second); err != nil {
					return nil, err
				}
				return e.wrap(spec)(e.Engine.Create(ctx, spec))
			},
		},
		{
			name: "a sandbox is left", find: "lifecycle/run", how: "left behind: resource",
			destroy: func(*brokenSandbox, context.Context) error { return nil },
		},
		{
			name: "destroying twice fails", find: "lifecycle/destroy-unstarted", how: "Destroy = ",
			destroy: func(s *brokenSandbox, ctx context.Context) error {
				if s.count() > 1 {
					return errors.New("no such sandbox")
				}
				return s.full.Destroy(ctx)
			},
		},
		{
			name: "destroying hangs", find: "stop/destroy", how: "did not end within",
			destroy: func(*brokenSandbox, context.Context) error { time.Sleep(3 * time.Second); return nil },
		},
		{
			name: "a second start is let through", find: "lifecycle/start-twice", how: "second Start",
			start: func(s *brokenSandbox, ctx context.Context) (engine.Process, error) {
				if s.count() > 1 {
					return s.Process(ctx)
				}
				return s.process(s.full.Start(ctx))
			},
		},
		{
			name: "starting panics", find: "lifecycle/run", how: "panic: out of luck",
			start: func(*brokenSandbox, context.Context) (engine.Process, error) { panic("out of luck") },
		},
		{
			name: "a failed create leaves its handle", find: "lifecycle/failed-create", how: "left handle.json",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				sb, err := e.wrap(spec)(e.Engine.Create(ctx, spec))
				if err != nil {
					err = errors.Join(err, os.WriteFile(filepath.Join(spec.Dir, engine.HandleFile), nil, 0o600))
				}
				return sb, err
			},
		},
		{
			name: "an id may live twice", find: "lifecycle/same-id", how: "Create succeeded",
			create: changed(func(s *engine.Spec) { s.ID += "-" + filepath.Base(filepath.Dir(s.Dir)) }),
		},
		{
			name: "the spec is kept", find: "lifecycle/spec-is-copied", how: "Create changed the spec",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				spec.Env["ADDED"] = "1"
				return e.wrap(spec)(e.Engine.Create(ctx, spec))
			},
		},
		{
			name: "an interface is declared and not there", find: "construction/features-agree", how: "feature snapshot",
			probe: func(f *engine.Features) { f.Snapshot = true },
		},
		{
			name: "an interface is there and not declared", find: "construction/features-agree", how: "feature exec",
			probe: func(f *engine.Features) { f.Exec, f.Terminal = false, false },
		},
		{
			name: "more sandboxes live than declared", find: "construction/max-sandboxes", how: "Create succeeded",
			probe: func(f *engine.Features) { f.MaxSandboxes = 3 },
		},
		{
			name: "an undeclared field is dropped", find: "refusals/hostname", how: "Create succeeded",
			probe: func(f *engine.Features) { f.Hostname = false },
		},
		{
			name: "a refusal does not name its field", find: "refusals/ports", how: "does not name",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				sb, err := e.wrap(spec)(e.Engine.Create(ctx, spec))
				if err != nil {
					err = caisson.ErrUnsupported
				}
				return sb, err
			},
		},
		{
			name: "a refusal is of another kind", find: "refusals/ports", how: "want an error of kind",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				sb, err := e.wrap(spec)(e.Engine.Create(ctx, spec))
				if err != nil {
					err = errors.New("ports: no")
				}
				return sb, err
			},
		},
	}
}

func flawsOfSpecs() []flaw {
	return []flaw{
		{name: "the process limit is dropped", find: "limits/pids", create: changed(func(s *engine.Spec) { s.Limits.PIDs = 0 })},
		{name: "the memory limit is dropped", find: "limits/memory", create: changed(func(s *engine.Spec) { s.Limits.Memory = 0 })},
		{name: "the disk limit is dropped", find: "limits/disk", create: changed(func(s *engine.Spec) { s.Limits.Disk = 0 })},
		{name: "the file limit is dropped", find: "limits/files", create: changed(func(s *engine.Spec) { s.Limits.Files = 0 })},
		{name: "the log limit is dropped", find: "log/limit", create: changed(func(s *engine.Spec) { s.Limits.Log = 0 })},
		{name: "the cpu limit is dropped", find: "limits/cpus", create: changed(func(s *engine.Spec) { s.Limits.CPUs = 0 })},
		{name: "the tmpfs size is dropped", find: "mounts/tmpfs", create: changed(func(s *engine.Spec) {
			s.Mounts = slices.Clone(s.Mounts)
			for i := range s.Mounts {
				s.Mounts[i].Size = 0
			}
		})},
		{name: "read-only is dropped", find: "mounts/readonly", create: changed(func(s *engine.Spec) {
			s.Mounts = slices.Clone(s.Mounts)
			for i := range s.Mounts {
				s.Mounts[i].ReadOnly = false
			}
		})},
		{name: "mounts are dropped", find: "mounts/bind", create: changed(func(s *engine.Spec) { s.Mounts = nil })},
		{name: "the host's /tmp is shown", find: "mounts/tmp", create: changed(func(s *engine.Spec) {
			if s.Tmp == "" {
				s.Tmp = os.TempDir()
			}
		})},
		{name: "the host's environment is shown", find: "environment/nothing-of-the-host", create: changed(func(s *engine.Spec) {
			s.Env = maps.Clone(s.Env)
			if s.Env == nil {
				s.Env = make(map[string]string)
			}
			for _, kv := range os.Environ() {
				name, value, _ := strings.Cut(kv, "=")
				s.Env[name] = value
			}
		})},
		{name: "values are trimmed", find: "environment/values", create: changed(func(s *engine.Spec) {
			s.Env = maps.Clone(s.Env)
			for name, value := range s.Env {
				s.Env[name] = strings.TrimSpace(value)
			}
		})},
		{name: "the work folder is another", find: "mounts/work", create: changed(func(s *engine.Spec) { s.Work = "" })},
		{name: "the hostname is another", find: "isolation/hostname", create: changed(func(s *engine.Spec) { s.Hostname = "other" })},
		{name: "secrets are logged", find: "secrets/redacted", create: changed(func(s *engine.Spec) { s.Secrets = nil })},
		{name: "secrets are written", find: "secrets/not-on-disk", how: "has the secret", create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
			for _, s := range spec.Secrets {
				if err := os.WriteFile(filepath.Join(spec.Dir, "secret"), s.Value, 0o600); err != nil {
					return nil, err
				}
			}
			return e.wrap(spec)(e.Engine.Create(ctx, spec))
		}},
		{name: "a secret is read twice", find: "secrets/once", create: changed(func(s *engine.Spec) {
			s.Secrets = slices.Clone(s.Secrets)
			for i := range s.Secrets {
				s.Secrets[i].Once = false
			}
		})},
		{name: "the timeout is dropped", find: "stop/timeout", create: changed(func(s *engine.Spec) { s.Timeout = 0 })},
		{name: "the timeout has no grace", find: "stop/timeout", create: changed(func(s *engine.Spec) { s.Grace = 0 })},
		{name: "the stop signal is dropped", find: "stop/signal", create: changed(func(s *engine.Spec) { s.StopSignal = 0 })},
		{name: "linger is dropped", find: "log/output-kept-open", create: changed(func(s *engine.Spec) { s.Linger = 0 })},
		{name: "hostile ids are accepted", find: "construction/ids", create: changed(func(s *engine.Spec) { s.ID = "fine" })},
		{name: "hostile targets are accepted", find: "mounts/bad-targets", create: changed(func(s *engine.Spec) { s.Mounts = nil })},
	}
}

func flawsOfEnds() []flaw {
	return []flaw{
		{name: "codes are 0 or 1", find: "exit/codes", wait: exits(func(_ *brokenProcess, e *caisson.Exit) { e.Code = min(e.Code, 1) })},
		{name: "signals are codes", find: "exit/signals", wait: exits(func(_ *brokenProcess, e *caisson.Exit) {
			if e.Signal != 0 {
				e.Reason, e.Code, e.Signal = caisson.ReasonExited, 128+e.Signal, 0
			}
		})},
		{name: "waiting gives other answers", find: "exit/wait-repeats", wait: exits(func(p *brokenProcess, e *caisson.Exit) {
			e.EndedAt = e.EndedAt.Add(time.Duration(p.sandbox.count()))
		})},
		{name: "a waiter takes the program along", find: "exit/wait-cancelled", wait: func(p *brokenProcess, ctx context.Context) (caisson.Exit, error) {
			exit, err := p.Process.Wait(ctx)
			if err != nil {
				return exit, errors.Join(err, p.Process.Stop(context.WithoutCancel(ctx), engine.Stop{Reason: caisson.ReasonKilled}))
			}
			return exit, err
		}},
		{name: "usage is not measured", find: "exit/usage", wait: exits(func(_ *brokenProcess, e *caisson.Exit) { e.Usage = caisson.Usage{} })},
		{name: "not found is an error", find: "lifecycle/not-found", start: func(s *brokenSandbox, ctx context.Context) (engine.Process, error) {
			p, err := s.process(s.full.Start(ctx))
			if err == nil && !strings.Contains(s.spec.Args[0], "inside") {
				return nil, caisson.ErrNotFound
			}
			return p, err
		}},
		{name: "a log loses its last byte", find: "log/last-bytes", wait: exits(func(p *brokenProcess, _ *caisson.Exit) { cutLog(p.sandbox.spec.Log) })},
		{name: "a log has something more", find: "log/output", wait: exits(func(p *brokenProcess, _ *caisson.Exit) { addToLog(p.sandbox.spec.Log, "noise") })},
		{name: "the last stop decides", find: "stop/first-decides", wait: exits(func(p *brokenProcess, e *caisson.Exit) {
			if p.last != "" {
				e.Reason = p.last
			}
		}), stop: func(p *brokenProcess, ctx context.Context, s engine.Stop) error {
			p.last = s.Reason
			return p.Process.Stop(ctx, s)
		}},
		{name: "grace is not given", find: "stop/grace", stop: func(p *brokenProcess, ctx context.Context, s engine.Stop) error {
			s.Grace = 0
			return p.Process.Stop(ctx, s)
		}},
		{name: "signals go nowhere", find: "exit/signal", signal: func(*brokenProcess, context.Context, int) error { return nil }},
		{name: "a stop after the end works", find: "stop/after-the-end", stop: func(p *brokenProcess, ctx context.Context, s engine.Stop) error {
			_ = p.Process.Stop(ctx, s)
			return nil
		}},
		{name: "a process lives on", find: "stop/tree", how: "after the end", wait: exits(func(p *brokenProcess, _ *caisson.Exit) {
			holdLock(filepath.Join(p.sandbox.spec.Work, "lock2"), 3*time.Second)
		})},
		{name: "an aborted program is called killed", find: "stop/destroy", wait: exits(func(_ *brokenProcess, e *caisson.Exit) {
			if e.Reason == caisson.ReasonAborted {
				e.Reason = caisson.ReasonKilled
			}
		})},
		{name: "out of memory is a signal", find: "limits/memory", wait: exits(func(_ *brokenProcess, e *caisson.Exit) {
			if e.Reason == caisson.ReasonOOM {
				e.Reason = caisson.ReasonSignaled
			}
		})},
		{name: "pausing does nothing", find: "pause/halts", pause: func(*brokenSandbox, context.Context) error { return nil }},
		{name: "stats are all zero", find: "limits/stats", stats: func(*brokenSandbox, context.Context) (engine.Stats, error) { return engine.Stats{}, nil }},
		{name: "an exec after the end is unavailable", find: "exec/too-late", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			session, err := s.full.Exec(ctx, spec)
			if err != nil {
				err = caisson.ErrUnavailable
			}
			return session, err
		}},
		{name: "an exec has another environment", find: "exec/same-as-main", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			other := *spec
			other.Env = map[string]string{"MORE": "1"}
			return s.full.Exec(ctx, &other)
		}},
		{
			name: "a sandbox is not kept", find: "keep/enter", how: "Exec",
			create: func(e *broken, ctx context.Context, spec *engine.Spec) (engine.Sandbox, error) {
				other := *spec
				other.Keep = 0
				return e.wrap(spec)(e.Engine.Create(ctx, &other))
			},
		},
		{
			name: "keep is not declared and not refused", find: "refusals/keep", how: "Create succeeded",
			probe: func(f *engine.Features) { f.Keep = false },
		},
		{name: "an exec after the time is unavailable", find: "keep/over", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			session, err := s.full.Exec(ctx, spec)
			if err != nil {
				err = caisson.ErrUnavailable
			}
			return session, err
		}},
		{name: "an exec after the end has another folder", find: "keep/same-as-main", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			other := *spec
			other.Workdir = "/"
			return s.full.Exec(ctx, &other)
		}},
		{name: "a terminal has no size", find: "terminal/size", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			other := *spec
			other.Size = engine.Size{Cols: 1, Rows: 1}
			return s.full.Exec(ctx, &other)
		}},
		{name: "an exec has no timeout", find: "exec/timeout", exec: func(s *brokenSandbox, ctx context.Context, spec *engine.ExecSpec) (engine.Session, error) {
			other := *spec
			other.Timeout = 0
			return s.full.Exec(ctx, &other)
		}},
	}
}

// hostFS shows the host's work folder, and follows every link.
type hostFS struct{ work string }

func (f hostFS) path(name string) string {
	return filepath.Join(filepath.Dir(f.work), filepath.Join("/", name))
}
func (f hostFS) Open(name string) (fs.File, error)          { return os.Open(f.path(name)) }
func (f hostFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(f.path(name)) }
func (f hostFS) Stat(name string) (fs.FileInfo, error)      { return os.Stat(f.path(name)) }
func (f hostFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(f.path(name)) }
func (f hostFS) ReadLink(name string) (string, error)       { return os.Readlink(f.path(name)) }
func (f hostFS) Close() error                               { return nil }

func flawsOfFiles() []flaw {
	host := func(s *brokenSandbox, _ context.Context) (engine.FS, error) { return hostFS{s.spec.Work}, nil }
	return []flaw{
		{name: "links lead out", find: "files/links", files: host},
		{name: "swapped links lead out", find: "files/swap", how: "of the host", files: host},
		{name: "names are not checked", find: "files/hostile-names", files: host},
		{name: "files live on", find: "files/too-late", files: host},
		{name: "unpacking leads out", find: "archive/put-hostile", how: "want an error of kind", put: func(s *brokenSandbox, _ context.Context, name string, r io.Reader) error {
			for archive := tar.NewReader(r); ; {
				header, err := archive.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return caisson.ErrInvalid
				}
				data, _ := io.ReadAll(archive)
				_ = os.WriteFile(filepath.Join(filepath.Dir(s.spec.Work), name, header.Name), data, 0o644)
			}
		}},
	}
}

func flawsOfRecovery() []flaw {
	return []flaw{
		{name: "closing destroys", find: "recover/close", closing: func(e *broken) error {
			_, _ = e.Engine.Sweep(context.Background(), nil)
			return e.Engine.Close()
		}},
		{name: "closing does nothing", find: "construction/close", closing: func(*broken) error { return nil }},
		{name: "sweeping destroys everything", find: "recover/sweep", sweep: func(e *broken, ctx context.Context, _ []string) ([]string, error) {
			return e.Engine.Sweep(ctx, nil)
		}},
		{name: "sweeping does nothing", find: "recover/sweep", sweep: func(*broken, context.Context, []string) ([]string, error) { return nil, nil }},
		{name: "sweeping reaches others", find: "recover/sweep-other", sweep: func(e *broken, ctx context.Context, live []string) ([]string, error) {
			opts := e.flaw.mem
			opts.Installation = "other"
			return mem.New(&opts).Sweep(ctx, live)
		}},
		{name: "what is found again is lost", find: "recover/ended-meanwhile", finding: func(e *broken, ctx context.Context, dir string) (engine.Sandbox, error) {
			e.flaw.mem.World.End(handleID(dir), caisson.Exit{Reason: caisson.ReasonLost})
			_ = os.Remove(filepath.Join(dir, "exit.json"))
			other := e.flaw.mem
			other.World = mem.NewWorld()
			return e.wrap(&engine.Spec{Dir: dir})(mem.New(&other).Recover(ctx, dir))
		}},
		{name: "handles are not checked", find: "recover/bad-handles", finding: func(e *broken, ctx context.Context, dir string) (engine.Sandbox, error) {
			sb, err := e.wrap(&engine.Spec{Dir: dir})(e.Engine.Recover(ctx, dir))
			if errors.Is(err, caisson.ErrInvalid) {
				err = caisson.ErrNotFound
			}
			return sb, err
		}},
	}
}
