//go:build unix

package executor

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/image"
)

// TestImageArgs holds Docker's rules for what runs.
func TestImageArgs(t *testing.T) {
	full := &image.Config{Entrypoint: []string{"entry"}, Cmd: []string{"cmd", "arg"}}
	tests := []struct {
		name string
		p    caisson.Program
		c    *image.Config
		want []string
	}{
		{"Alone", caisson.Program{}, full, []string{"entry", "cmd", "arg"}},
		{"Cmd", caisson.Program{Cmd: []string{"mine"}}, full, []string{"entry", "mine"}},
		{"Entrypoint", caisson.Program{Entrypoint: []string{"mine"}}, full, []string{"mine"}},
		{"Both", caisson.Program{Entrypoint: []string{"mine"}, Cmd: []string{"too"}}, full, []string{"mine", "too"}},
		{"OnlyCmd", caisson.Program{}, &image.Config{Cmd: []string{"sh"}}, []string{"sh"}},
		{"Nothing", caisson.Program{}, &image.Config{}, nil},
	}
	for _, test := range tests {
		if got := imageArgs(&test.p, test.c); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestMerge(t *testing.T) {
	config := &image.Config{
		Env: []string{"PATH=/image", "SET=image", "EMPTY="}, Entrypoint: []string{"entry"}, Cmd: []string{"cmd"},
		Workdir: "srv/../app", User: "web:www", StopSignal: "SIGQUIT",
	}
	base := func() *engine.Spec { return &engine.Spec{Env: map[string]string{"SET": "task"}} }
	env := map[string]string{"PATH": "/image", "SET": "task", "EMPTY": ""}
	tests := []struct {
		name    string
		st      step
		task    caisson.Task
		spec    func(*engine.Spec)
		options engine.ImageOptions
		want    engine.Spec
	}{
		{name: "Image", st: step{kind: kindMain}, want: engine.Spec{
			Args: []string{"entry", "cmd"}, Env: env, Workdir: "/app", User: "web:www", StopSignal: 3,
		}},
		{name: "Task", st: step{kind: kindMain, program: caisson.Program{Run: "x"}}, task: caisson.Task{StopSignal: "INT"}, spec: func(s *engine.Spec) {
			s.Run, s.Workdir, s.User, s.StopSignal = "x", "/work", "5", 2
		}, want: engine.Spec{Run: "x", Env: env, Workdir: "/work", User: "5", StopSignal: 2}},
		{name: "Command", st: step{kind: kindMain}, options: engine.ImageOptions{Entrypoint: []string{"c"}, Cmd: []string{"a"}}, want: engine.Spec{
			Args: []string{"c", "a"}, Env: env, Workdir: "/app", User: "web:www", StopSignal: 3,
		}},
		{name: "Args", st: step{kind: kindMain}, options: engine.ImageOptions{Cmd: []string{"a"}}, want: engine.Spec{
			Args: []string{"entry", "a"}, Env: env, Workdir: "/app", User: "web:www", StopSignal: 3,
		}},
		{
			name: "OtherStep", st: step{kind: kindPost, program: caisson.Program{Cmd: []string{"b"}}},
			options: engine.ImageOptions{Entrypoint: []string{"c"}},
			want:    engine.Spec{Args: []string{"entry", "b"}, Env: env, Workdir: "/app", User: "web:www", StopSignal: 3},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := base()
			if test.spec != nil {
				test.spec(got)
			}
			err := merge(got, &test.st, &test.task, config, &test.options)
			if diff := cmp.Diff(&test.want, got); err != nil || diff != "" {
				t.Errorf("merge: %v (-want +got)\n%s", err, diff)
			}
		})
	}
	for name, test := range map[string]struct {
		c       image.Config
		program caisson.Program
	}{
		"ErrEnv":     {image.Config{Env: []string{"=x"}}, caisson.Program{}},
		"ErrNUL":     {image.Config{Env: []string{"A=\x00"}}, caisson.Program{}},
		"ErrSignal":  {image.Config{StopSignal: "SIGNOTHING"}, caisson.Program{}},
		"ErrCommand": {image.Config{}, caisson.Program{Cmd: []string{"x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			options := &engine.ImageOptions{}
			if name == "ErrCommand" {
				options.Entrypoint = []string{"c"}
			}
			err := merge(base(), &step{kind: kindMain, program: test.program}, &caisson.Task{}, &test.c, options)
			if !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("merge = %v, want ErrInvalid", err)
			}
		})
	}
}

func TestReserved(t *testing.T) {
	for target, want := range map[string]bool{
		"/": true, "/proc": true, "/proc/x": true, "/tmp": true, "/work/x": true, "/dev/shm": true, "/run/once": true,
		"/data": false, "/processes": false, "/var/lib/db": false,
	} {
		if reserved(target) != want {
			t.Errorf("reserved(%q) = %v", target, !want)
		}
	}
}
