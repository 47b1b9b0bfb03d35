package mem

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// A notRun says why a program can't be run, as a shell's exit code does.
type notRun struct {
	code int // 127: not found; 126: not executable
	why  string
}

// maxArg is how long one argument may be, and maxArgs all of them together:
// Linux's limits.
const (
	maxArg  = 128 << 10
	maxArgs = 2 << 20
)

// find returns the program that p is to run: one of Options.Programs or a
// built-in one, by name or as the last element of a path that is not a file
// of the sandbox.
func (b *box) find(p *Proc) (Program, *notRun) {
	if len(p.args) == 0 {
		return nil, &notRun{126, "no program"}
	}
	if info, err := b.tree.lstat(p.dir); err != nil || !info.IsDir() {
		return nil, &notRun{126, fmt.Sprintf("workdir %q: no such folder", p.dir)}
	}
	total := 0
	for _, arg := range p.args {
		total += len(arg) + 1
		if len(arg) >= maxArg || total > maxArgs {
			return nil, &notRun{126, fmt.Sprintf("%.60q: argument list too long", p.args[0])}
		}
	}
	name := p.args[0]
	if strings.Contains(name, "/") {
		if failure := b.checkFile(p, name); failure != nil {
			return nil, failure
		}
	}
	for _, programs := range []map[string]Program{b.programs, Builtins()} {
		if program := programs[path.Base(name)]; program != nil {
			return program, nil
		}
	}
	return nil, &notRun{127, fmt.Sprintf("%q: not found", name)}
}

// checkFile says why a file of the sandbox can't be run. There are none that
// can: a file is not a Go function.
func (b *box) checkFile(p *Proc, name string) *notRun {
	if !path.IsAbs(name) {
		name = path.Join(p.dir, name)
	}
	info, err := b.tree.stat(name)
	switch {
	case err != nil:
		return nil
	case info.IsDir():
		return &notRun{126, fmt.Sprintf("%q: is a folder", name)}
	case info.Mode()&0o111 == 0:
		return &notRun{126, fmt.Sprintf("%q: permission denied", name)}
	}
	return &notRun{126, fmt.Sprintf("%q: exec format error", name)}
}

// environ returns the main program's environment.
func (b *box) environ() []string {
	env := map[string]string{"PATH": "/usr/bin:/bin", "HOME": caisson.WorkDir, "USER": "task", "TMPDIR": "/tmp"}
	maps.Copy(env, b.spec.Env)
	for _, s := range b.spec.Secrets {
		if s.As == caisson.SecretEnv {
			env[s.Name] = string(s.Value)
		}
	}
	return join(env)
}

func join(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func (b *box) workdir() string {
	if b.spec.Workdir != "" {
		return path.Clean(b.spec.Workdir)
	}
	return caisson.WorkDir
}
