package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Warm is a section [warm.NAME]: sandboxes that are made before there are tasks for
// them.
type Warm struct {
	Size    int           `json:"size,omitempty"`   // how many; 0: one
	Engine  string        `json:"engine,omitempty"` // empty: the first preferred one that can
	Image   string        `json:"image,omitempty"`
	Module  string        `json:"module,omitempty"`
	User    string        `json:"user,omitempty"`
	Network string        `json:"network,omitempty"`
	CPUs    string        `json:"cpus,omitempty"`
	Memory  caisson.Bytes `json:"memory,omitempty"`
	PIDs    int64         `json:"pids,omitempty"`
	Disk    caisson.Bytes `json:"disk,omitempty"`
	Files   int64         `json:"files,omitempty"`
}

func warmSections() *fields.Type {
	const most = 1 << 30
	text := func(want string) *fields.Type {
		return &fields.Type{Form: fields.Text, Want: want, NotEmpty: true, MaxLength: 4096}
	}
	cpus := &fields.Type{
		Form: fields.Text, Want: "a number of processors in quotes, such as \"0.5\"", NotEmpty: true,
		Check: func(s string) error {
			_, err := caisson.ParseCPUs(s)
			return err
		},
	}
	name := &fields.Type{Form: fields.Text, Want: "a name of letters, digits and -", Pattern: fields.Match(`[A-Za-z0-9][A-Za-z0-9-]{0,62}`)}
	pool := section("settings of a warm pool",
		fields.Field{
			Name: "size", Type: whole("a number of sandboxes, 1 to 100", 1, 100), Default: "1", Also: []string{"count", "replicas"}, Examples: []any{4},
			Doc: "How many sandboxes wait. Each takes the memory of one in which nothing runs yet: of a machine that is what its system takes.",
		},
		fields.Field{
			Name: "engine", Default: "the first that can",
			Type:     &fields.Type{Form: fields.Text, Want: "an engine's name", Pattern: fields.Match(`[a-z][a-z0-9-]{0,31}`)},
			Examples: []any{"qemu"}, Doc: "The engine whose sandboxes they are.",
		},
		fields.Field{Name: "image", Type: text("an image's name"), Default: "none", Examples: []any{"python:3.13"}, Doc: "The image, as tasks name it. A file's path is absolute."},
		fields.Field{Name: "module", Type: text("a module's file or URL"), Default: "none", Doc: "The WebAssembly module, as tasks name it."},
		fields.Field{Name: "user", Type: text("a user"), Default: "as for tasks", Examples: []any{"1000:1000"}, Doc: "Who programs run as, as in tasks."},
		fields.Field{Name: "network", Type: text("a network's name"), Default: "none", Examples: []any{"default"}, Doc: "`none`, `default`, `host` or a network's name. Lists of hosts are for each task to be made with."},
		fields.Field{Name: "cpus", Type: cpus, Default: "none", Examples: []any{"0.5"}, Doc: "`limits.cpus` of the tasks."},
		fields.Field{Name: "memory", Type: sizeType(), Default: "none", Examples: []any{"512m"}, Doc: "`limits.memory` of the tasks."},
		fields.Field{Name: "pids", Type: whole("a number of processes", 1, most), Default: "none", Doc: "`limits.pids` of the tasks."},
		fields.Field{Name: "disk", Type: sizeType(), Default: "none", Examples: []any{"1g"}, Doc: "`limits.disk` of the tasks."},
		fields.Field{Name: "files", Type: whole("a number of files", 1, most), Default: "none", Doc: "`limits.files` of the tasks."},
	)
	return &fields.Type{Form: fields.Table, Key: name, Elem: pool, Want: "a section for each pool"}
}

// Task is what a pool's sandboxes are made for.
func (w *Warm) Task() (*caisson.Task, error) {
	task := &caisson.Task{
		Engine: w.Engine, Module: w.Module, Program: caisson.Program{Image: w.Image, User: w.User},
		Limits: caisson.Limits{Memory: w.Memory, PIDs: w.PIDs, Disk: w.Disk, Files: w.Files},
	}
	if w.Network != "" && w.Network != caisson.NetworkNone {
		task.Network.Mode = w.Network
	}
	if w.CPUs != "" {
		cpus, err := caisson.ParseCPUs(w.CPUs)
		if err != nil {
			return nil, err
		}
		task.Limits.CPUs = cpus
	}
	return task, nil
}

// checkWarm reports pools that contradict themselves.
func (c *Config) checkWarm(report func(key, message string)) {
	for _, name := range slices.Sorted(maps.Keys(c.Warm)) {
		w := c.Warm[name]
		if err := w.check(); err != nil {
			report("warm."+name, err.Error())
		}
	}
}

func (w *Warm) check() error {
	switch {
	case w.Image != "" && w.Module != "":
		return errors.New("want either image or module")
	case w.Network == caisson.NetworkAllow:
		return fmt.Errorf("network %q: a list of hosts belongs to one task; its sandbox is made for it", w.Network)
	}
	return nil
}
