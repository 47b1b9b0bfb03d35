package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func valid() *engine.Spec {
	return &engine.Spec{ID: "task-1-main", Dir: "/d", Log: "/l", Args: []string{"true"}}
}

func TestValidateOK(t *testing.T) {
	s := valid()
	s.Work, s.Tmp, s.Workdir = "/work", "/tmp/x", "/work/../odd but absolute"
	s.Env = map[string]string{"A": "", "with-dash": "x=y", "ü": "ü"}
	s.Mounts = []engine.Mount{
		{Type: engine.MountBind, Source: "/s", Target: "/a b/c"}, {Type: engine.MountTmpfs, Target: "/dev/shm", Mode: 0o1777},
	}
	s.User, s.Hostname, s.StopSignal = "1000:1000", "host-1", 64
	s.Secrets = []engine.Secret{{Name: "x", As: caisson.SecretFile}, {Name: "X", As: caisson.SecretEnv}, {Name: "only to redact"}}
	if err := s.Validate(); err != nil {
		t.Errorf("Validate = %v, want nil", err)
	}
	for _, program := range []*engine.Spec{
		{Run: "x"},
		{Image: "i"},
		{Image: "i", Args: []string{"x"}},
		{RootFS: &engine.RootFS{Path: "/r"}, Run: "x"},
		{Module: "m"},
		{Machine: &caisson.Machine{}},
		{Machine: &caisson.Machine{}, Image: "i"},
		{Options: []byte("{}")},
	} {
		program.ID, program.Dir, program.Log = "x", "/d", "/l"
		if err := program.Validate(); err != nil {
			t.Errorf("Validate(%+v) = %v, want nil", program, err)
		}
	}
}

func TestValidateErr(t *testing.T) {
	for field, change := range map[string]func(*engine.Spec){
		"id":            func(s *engine.Spec) { s.ID = "../x" },
		"dir":           func(s *engine.Spec) { s.Dir = "" },
		"log":           func(s *engine.Spec) { s.Log = "relative" },
		"work":          func(s *engine.Spec) { s.Work = "/a/../b" },
		"tmp":           func(s *engine.Spec) { s.Tmp = "x" },
		"rootfs.path":   func(s *engine.Spec) { s.RootFS = &engine.RootFS{Path: "x"} },
		"cmd: nothing":  func(s *engine.Spec) { s.Args = nil },
		"cmd, run":      func(s *engine.Spec) { s.Run = "x" },
		"cmd[0]":        func(s *engine.Spec) { s.Args = []string{""} },
		"cmd[1]":        func(s *engine.Spec) { s.Args = []string{"x", "\x00"} },
		"cmd[2]":        func(s *engine.Spec) { s.Args = []string{"x", "y", "\xff"} },
		"run":           func(s *engine.Spec) { s.Args, s.Run = nil, "x\x00" },
		"image, module": func(s *engine.Spec) { s.Image, s.Module = "i", "m" },
		`env."A=B"`:     func(s *engine.Spec) { s.Env = map[string]string{"A=B": ""} },
		`env.""`:        func(s *engine.Spec) { s.Env = map[string]string{"": ""} },
		`env."A"`:       func(s *engine.Spec) { s.Env = map[string]string{"A": "\x00"} },
		"workdir":       func(s *engine.Spec) { s.Workdir = "x" },
		"user":          func(s *engine.Spec) { s.User = "a b" },
		"group":         func(s *engine.Spec) { s.Group = "a/b" },
		"hostname":      func(s *engine.Spec) { s.Hostname = "a\nb" },
		"limits.memory": func(s *engine.Spec) { s.Limits.Memory = -1 },
		"limits.pids":   func(s *engine.Spec) { s.Limits.PIDs = -1 },
		"timeout":       func(s *engine.Spec) { s.Timeout = -1 },
		"grace":         func(s *engine.Spec) { s.Grace = -1 },
		"linger":        func(s *engine.Spec) { s.Linger = -1 },
		"stop_signal":   func(s *engine.Spec) { s.StopSignal = 65 },
		`secrets."a/b"`: func(s *engine.Spec) { s.Secrets = []engine.Secret{{Name: "a/b", As: caisson.SecretFile}} },
		`secrets."=".`:  func(s *engine.Spec) { s.Secrets = []engine.Secret{{Name: "=", As: "x"}} },
		"mounts[0].type": func(s *engine.Spec) {
			s.Mounts = []engine.Mount{{Type: "nfs", Target: "/a"}}
		},
		"mounts[0].source": func(s *engine.Spec) {
			s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Source: "/s", Target: "/a"}}
		},
		"mounts[0].mode": func(s *engine.Spec) {
			s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/a", Mode: 0o4777}}
		},
		"mounts[1].target": func(s *engine.Spec) {
			s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: "/a"}, {Type: engine.MountTmpfs, Target: "/a"}}
		},
	} {
		s := valid()
		change(s)
		err := s.Validate()
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate = %v, want ErrInvalid that names %s", err, field)
		}
	}
}

func TestValidateTargets(t *testing.T) {
	for _, target := range []string{"", "/", "a", "/a/", "/a/..", "//a", "/proc", "/proc/x", "/sys", "/dev", "/dev/null", "/a\x00"} {
		s := valid()
		s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: target}}
		if err := s.Validate(); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("target %q: %v, want ErrInvalid", target, err)
		}
	}
	for _, target := range []string{"/procfs", "/system", "/devel", "/work", "/tmp/x", "/dev/shm"} {
		s := valid()
		s.Mounts = []engine.Mount{{Type: engine.MountTmpfs, Target: target}}
		if err := s.Validate(); err != nil {
			t.Errorf("target %q: %v, want nil", target, err)
		}
	}
}

func TestValidateTellsNoValues(t *testing.T) {
	s := valid()
	s.Env = map[string]string{"A=": "the value\x00"}
	s.Secrets = []engine.Secret{{Name: "=", Value: []byte("the value"), As: caisson.SecretEnv}}
	if err := s.Validate(); err == nil || strings.Contains(err.Error(), "the value") {
		t.Errorf("Validate = %v", err)
	}
}

func TestExecSpecValidate(t *testing.T) {
	ok := &engine.ExecSpec{Env: map[string]string{"A": "1"}, Workdir: "/x", Terminal: true}
	if err := ok.Validate(); err != nil {
		t.Errorf("Validate = %v, want nil: no arguments are the default shell", err)
	}
	bad := &engine.ExecSpec{Args: []string{""}, Env: map[string]string{"": ""}, Workdir: "x", Timeout: -1}
	err := bad.Validate()
	for _, field := range []string{"exec: ", "cmd[0]", `env.""`, "workdir", "timeout"} {
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate = %v, want ErrInvalid that names %s", err, field)
		}
	}
}
