package attack

import (
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

func execs() []Attack {
	return []Attack{
		{
			ID: "A3", Name: "exec/hostile-workdir", Run: execWorkdir, Needs: []string{"exec"}, Bound: readOnly,
			Tries: "have an exec start in /proc/self/fd/N and the like",
			CVE:   []string{"CVE-2024-21626"},
		},
		{
			ID: "A15", Name: "terminal/inject", Run: terminalInject, Needs: []string{"exec", "terminal"},
			Bound: "one letter is typed into the exec's own terminal",
			Tries: "type into its caller's terminal by TIOCSTI",
			CVE:   []string{"CVE-2016-2568", "CVE-2017-5226"},
		},
		{
			ID: "A16", Name: "exec/joins", Run: execJoins, Needs: []string{"exec"}, Bound: readOnly,
			Tries: "find an exec outside of the task's namespaces, filter, capabilities, user, groups or limits",
			CVE:   []string{"CVE-2022-29162", "CVE-2026-30892"},
		},
	}
}

// exec runs the inside program beside the main one and returns what it said.
func (b *box) exec(spec *engine.ExecSpec) (string, caisson.Exit) {
	session, err := b.Sandbox.(engine.Execer).Exec(b.t.ctx, spec)
	b.t.OK(err, "Exec")
	// What is on stderr is of no interest, and must not stop the program.
	var reading sync.WaitGroup
	defer reading.Wait()
	defer session.Close()
	reading.Go(func() { _, _ = io.Copy(io.Discard, session.Stderr()) })
	out, err := io.ReadAll(io.LimitReader(session.Stdout(), 1<<20))
	b.t.OK(err, "reading the exec's output")
	exit, err := session.Wait(b.t.ctx)
	b.t.OK(err, "Wait")
	return string(out), exit
}

func execWorkdir(t *Trial) {
	flag, text := t.Flag()
	b := t.launch("say ready ; hold")
	b.says("ready")
	for _, dir := range hostileDirs() {
		session, err := b.Sandbox.(engine.Execer).Exec(t.ctx, &engine.ExecSpec{
			Args: t.Argv("try", "read", "."+flag, ";", "try", "read", "../../../../../.."+flag), Workdir: dir,
		})
		if err != nil {
			continue // refused
		}
		out, _ := io.ReadAll(io.LimitReader(session.Stdout(), 1<<20))
		session.Close()
		if strings.Contains(string(out), text) {
			t.Errorf("Workdir %q: the exec reads the host's %s", dir, flag)
		}
	}
	b.kill()
}

func terminalInject(t *Trial) {
	t.ownKernel()
	b := t.launch("say ready ; hold")
	b.says("ready")
	out, _ := b.exec(&engine.ExecSpec{Args: t.Argv("attempt tty-inject"), Terminal: true})
	if !denied(strings.TrimPrefix(strings.TrimSpace(out), "tty-inject ")) {
		t.Errorf("TIOCSTI: %q, want it denied", out)
	}
	b.kill()
}

func execJoins(t *Trial) {
	spec := t.Spec("report ; say ready ; hold")
	if t.Features.Limits.Files {
		spec.Limits.Files = 123
	}
	b := t.start(spec)
	b.says("ready")
	main := t.facts(lines(b.stdout())[0])
	out, _ := b.exec(&engine.ExecSpec{Args: t.Argv("report")})
	exec := t.facts(out)
	for what, same := range map[string]bool{
		"user":         main.UID == exec.UID && main.GID == exec.GID,
		"groups":       slices.Equal(main.Groups, exec.Groups),
		"capabilities": maps.Equal(main.Caps, exec.Caps),
		"no_new_privs": main.NoNewPrivs == exec.NoNewPrivs,
		"seccomp":      main.Seccomp == exec.Seccomp,
		"limits":       maps.Equal(main.Limits, exec.Limits),
		"namespaces":   t.sameNamespaces(main, exec),
		"devices":      slices.Equal(main.Interfaces, exec.Interfaces),
		"descriptors":  len(exec.FDs) <= 3,
	} {
		if !same {
			t.Errorf("the exec's %s: the program has user %d:%d %v, %v, seccomp %d, namespaces %v; the exec %d:%d %v, %v, seccomp %d, namespaces %v", what,
				main.UID, main.GID, main.Groups, main.Caps, main.Seccomp, main.Namespaces, exec.UID, exec.GID, exec.Groups, exec.Caps, exec.Seccomp, exec.Namespaces)
		}
	}
	b.kill()
}

// sameNamespaces compares the namespaces of the main program and an exec. Where
// a kernel of the sandbox's own gives them names of its own, an exec that sees
// the main program is where that is.
func (t *Trial) sameNamespaces(main, exec *act.Facts) bool {
	if t.separateKernel() {
		return exec.Processes[main.PID] != ""
	}
	return maps.Equal(main.Namespaces, exec.Namespaces)
}
