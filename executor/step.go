//go:build unix

package executor

import (
	"fmt"
	"maps"
	"strings"

	"github.com/caissonrun/caisson"
)

// A kind is the part of an attempt that a step belongs to.
type kind string

const (
	kindPre     kind = "pre"
	kindSidecar kind = "sidecar"
	kindMain    kind = "main"
	kindPost    kind = "post"
	kindFinally kind = "finally"
)

// kindOf returns the kind of the step that has the name.
func kindOf(name string) kind {
	k, _, _ := strings.Cut(name, "-")
	return kind(k)
}

// A step is one program of an attempt.
type step struct {
	name    string // in ids, paths and the journal: "main", "pre-0"
	title   string // the document's name for it, or empty
	kind    kind
	program caisson.Program
	timeout caisson.Duration
	probe   *caisson.Probe
}

// label returns what the step is called in logs and results.
func (st *step) label() string {
	if st.title != "" {
		return st.title
	}
	return st.name
}

// A script is the steps of a task by kind, each list in order.
type script map[kind][]step

// stepsOf lists the task's steps. A step has what it does not say itself from
// the main program: image, user, workdir, and the environment that it adds to.
func stepsOf(task *caisson.Task) script {
	s := script{kindMain: {{name: string(kindMain), kind: kindMain, program: task.Program, timeout: task.Timeout}}}
	for k, list := range map[kind][]caisson.Step{
		kindPre: task.Pre, kindSidecar: task.Sidecars, kindPost: task.Post, kindFinally: task.Finally,
	} {
		for i, st := range list {
			s[k] = append(s[k], step{
				name:    fmt.Sprintf("%s-%d", k, i),
				title:   st.Name,
				kind:    k,
				program: inherit(st.Program, &task.Program),
				timeout: st.Timeout,
				probe:   st.Probe,
			})
		}
	}
	return s
}

func (s script) main() *step { return &s[kindMain][0] }

// all returns every step in the order in which they are started.
func (s script) all() []step {
	var list []step
	for _, k := range []kind{kindPre, kindSidecar, kindMain, kindPost, kindFinally} {
		list = append(list, s[k]...)
	}
	return list
}

// find returns the step by its name or its title, or nil.
func (s script) find(name string) *step {
	for _, st := range s.all() {
		if st.name == name || (st.title != "" && st.title == name) {
			return &st
		}
	}
	return nil
}

// label returns what the step of that name is called in logs and results.
func (s script) label(name string) string {
	if st := s.find(name); st != nil {
		return st.label()
	}
	return name
}

// inherit fills in what a step's program leaves to the main one.
func inherit(p caisson.Program, from *caisson.Program) caisson.Program {
	if p.Image == "" {
		p.Image = from.Image
	}
	if p.User == "" {
		p.User = from.User
	}
	if p.Workdir == "" {
		p.Workdir = from.Workdir
	}
	env := maps.Clone(from.Env)
	if env == nil {
		env = make(map[string]string)
	}
	maps.Copy(env, p.Env)
	p.Env = env
	return p
}

// argv returns the program's arguments, or its script for the engine's shell.
// A script that has an entrypoint is that program's last argument.
func argv(p *caisson.Program) (args []string, run string) {
	if p.Run != "" && len(p.Entrypoint) == 0 {
		return nil, p.Run
	}
	args = append(args, p.Entrypoint...)
	if p.Run != "" {
		return append(args, p.Run), ""
	}
	return append(args, p.Cmd...), ""
}

// workdir returns the current directory: the document's; else the work folder,
// but where an image may have its own.
func workdir(p *caisson.Program) string {
	switch {
	case p.Workdir != "":
		return inside(p.Workdir)
	case p.Run == "" && p.Image != "":
		return ""
	}
	return caisson.WorkDir
}
