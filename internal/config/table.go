package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// table describes the whole configuration. It is the one source of what Load
// accepts, of the JSON Schema and of the tables in docs/configuration.md.
func table() *fields.Type {
	return section("settings",
		fields.Field{
			Name: "state", Type: folder(), Also: []string{"state_dir", "data"},
			Examples: []any{"/var/lib/caisson"},
			Default:  "`/var/lib/caisson` for root, else `$XDG_STATE_HOME/caisson` or `~/.local/state/caisson`",
			Doc:      "The folder of all that must survive: tasks, logs, volumes, caches.",
		},
		fields.Field{
			Name: "runtime", Type: folder(), Also: []string{"runtime_dir", "run"},
			Examples: []any{"/run/caisson"},
			Default:  "`/run/caisson` for root on Linux, else `$XDG_RUNTIME_DIR/caisson`, else `run` in the state folder",
			Doc:      "The folder of sockets and secrets. It should not be on a disk.",
		},
		fields.Field{Name: "component", Also: []string{"components"}, Type: componentSection(), Doc: "Data components: see docs/components.md."},
		fields.Field{Name: "executor", Type: executorSection(), Doc: "How tasks are run, whatever the engine."},
		fields.Field{
			Name: "engine", Doc: "The engines, a section each.",
			Type: section(
				"a section for each engine",
				fields.Field{Name: "native", Type: nativeSection(), Doc: "Processes of this host."},
				fields.Field{Name: "oci", Type: ociSection(), Doc: "Images without a daemon."},
				fields.Field{Name: "docker", Type: dockerSection(), Doc: "Images by a Docker daemon."},
				fields.Field{Name: "qemu", Type: qemuSection(), Doc: "Virtual machines."},
				fields.Field{Name: "wasm", Type: wasmSection(), Doc: "WebAssembly modules."},
				fields.Field{Name: "script", Type: scriptSection(), Doc: "A program of the operator's for declarative tasks."},
			),
		},
		fields.Field{Name: "image", Also: []string{"images", "registry"}, Type: imageSection(), Doc: "Images: where they come from, and what is kept of them."},
		fields.Field{
			Name: "mount", Also: []string{"mounts"}, Doc: "Where mounts may come from.",
			Type: section("a section for each type of mount", fields.Field{
				Name: "bind", Doc: "Paths of this host.",
				Type: section("settings of bind mounts", fields.Field{
					Name: "allow", Type: list(folder()), Default: "none",
					Also: []string{"allowed", "sources", "paths"}, Examples: []any{[]any{"/srv/data"}},
					Doc: "Folders below which tasks that come through a front door other than the command " +
						"line may bind paths, after symbolic links are resolved. On the command line, binds " +
						"act with the caller's rights.",
				}),
			}),
		},
		fields.Field{
			Name: "proxy", Also: []string{"proxies", "upstream", "upstreams"}, Type: proxySections(), Default: "none",
			Doc: "HTTP services that tasks may name as upstreams of their `proxies`, a section `[proxy.NAME]` each. What is added to requests never enters a sandbox.",
		},
		fields.Field{
			Name: "network", Also: []string{"networks"}, Type: networkSections(), Default: "none",
			Doc: "Networks that tasks may name besides those of CNI plugins, a section `[network.NAME]` each. They need root, and engine `oci` or `qemu`.",
		},
		fields.Field{
			Name: "warm", Also: []string{"pool", "pools"}, Type: warmSections(), Default: "none",
			Doc: "Sandboxes that are made before there are tasks for them, a section `[warm.NAME]` for each kind: see `caisson warm`. A task is given one if it asks for exactly what the section says.",
		},
		fields.Field{
			Name: "stage", Also: []string{"staging"}, Doc: "Where inputs may come from and outputs go.",
			Type: section("a section for each kind of place",
				fields.Field{
					Name: "file", Doc: "Files of this host.",
					Type: section("settings of file: URLs", fields.Field{
						Name: "allow", Type: list(folder()), Default: "none",
						Also: []string{"allowed", "paths"}, Examples: []any{[]any{"/srv/data"}},
						Doc: "Folders below which `file:` and `git+file:` inputs and outputs may lie for " +
							"tasks that come through a front door other than the command line, after symbolic " +
							"links are resolved.",
					}),
				},
				fields.Field{
					Name: "http", Also: []string{"https"}, Doc: "Web servers.",
					Type: section("settings of http: and https: URLs", fields.Field{
						Name: "allow_private", Type: toggle(), Default: "false",
						Doc: "Lets inputs of every task come from loopback, private and link-local addresses; on the command line a task may always name such a server itself.",
					}),
				},
			),
		},
	)
}

func section(want string, list ...fields.Field) *fields.Type {
	return &fields.Type{Form: fields.Object, Want: want, Fields: list}
}

func executorSection() *fields.Type {
	name := &fields.Type{Form: fields.Text, Want: "an engine's name", Pattern: fields.Match(`[a-z][a-z0-9-]{0,31}`)}
	prefer := list(name)
	prefer.Unique = true
	size := sizeType()
	return section("settings of the executor",
		fields.Field{
			Name: "prefer", Type: prefer, Default: "the order of `caisson engines`",
			Also:     []string{"engines", "engine"},
			Examples: []any{[]any{"native"}},
			Doc: "Names of engines, most wanted first. A task that names none gets the first that can do " +
				"all it asks for.",
		},
		fields.Field{
			Name: "log_limit", Type: size, Default: "1g", Examples: []any{"64m"},
			Doc: "What the log of a step may have where the task sets no `limits.log`; 0 is no limit. What is " +
				"over it is dropped, and a marker in the log says so.",
		},
	)
}

// sizeType is a number of bytes.
func sizeType() *fields.Type {
	return &fields.Type{
		Form: fields.Text, Name: "size", Want: "a size such as 64m or 1g, or a number of bytes", Numbers: fields.WholeNumbers, Max: 1 << 62,
		Pattern: fields.Match(`[0-9]+ ?[bB]?|[0-9]+(\.[0-9]+)? ?[kKmMgGtT]([iI]?[bB])?`),
		Check: func(s string) error {
			_, err := caisson.ParseBytes(s)
			return err
		},
	}
}

// durationType is a span of time.
func durationType() *fields.Type {
	return &fields.Type{
		Form: fields.Text, Name: "duration", Want: "a duration such as 30s or 720h, or a number of seconds", Numbers: fields.WholeNumbers, Max: 1<<32 - 1,
		Pattern: fields.Match(`[0-9]+|([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+`),
		Check: func(s string) error {
			_, err := caisson.ParseDuration(s)
			return err
		},
	}
}

func nativeSection() *fields.Type {
	id := func() *fields.Type { return whole("an id, 0 to 2147483646", 0, 1<<31-2) }
	argument := &fields.Type{Form: fields.Text, Want: "text", NotEmpty: true}
	return section("settings of the engine native",
		fields.Field{
			Name: "shell", Type: list(argument), Default: "`bash -c`, or `sh -c` where there is no bash",
			Examples: []any{[]any{"sh", "-eu", "-c"}}, Doc: "The command that the script of `run` is appended to.",
		},
		fields.Field{
			Name: "uid", Type: id(), Default: "1000, or the caller with isolation none",
			Doc: "Who programs run as where the task names no user: in the sandbox, or on the host with " +
				"isolation none. 0 is the default.",
		},
		fields.Field{Name: "gid", Type: id(), Default: "as for uid", Doc: "The group of that user."},
		fields.Field{
			Name: "id_base", Type: whole("an id of the host, 65536 to 4294901760", 65536, 1<<32-65536),
			Default: "1879048192",
			Doc: "As root, the first user and group id of the host that is given to sandboxes. The range must " +
				"belong to nobody else.",
		},
		fields.Field{
			Name: "id_count", Type: whole("a number of ids, 3 or more", 3, 1<<31-1), Default: "65536",
			Doc: "How many ids of the host are given to sandboxes. Each uses three.",
		},
		fields.Field{
			Name: "isolation", Type: &fields.Type{Form: fields.Text, Enum: []string{"full", "none"}},
			Default: "full",
			Doc:     "What a task gets that asks for nothing else: full isolation, or none at all.",
		},
		fields.Field{
			Name: "paths", Type: list(folder()), Default: "none", Also: []string{"path", "readonly"},
			Examples: []any{[]any{"/opt/tools"}},
			Doc:      "Paths of the host that every sandbox sees, read-only, beside /usr.",
		},
		fields.Field{
			Name: "allow_none", Type: toggle(), Default: "false",
			Doc: "Lets tasks ask for no isolation: `options: {isolation: none}`.",
		},
		fields.Field{
			Name: "allow_host_network", Type: toggle(), Default: "false",
			Doc: "Lets tasks ask for the host's network: `network: host`.",
		},
	)
}

// maxID is the largest user or group id.
const maxID = 1<<32 - 2

func toggle() *fields.Type { return &fields.Type{Form: fields.Flag} }

func whole(want string, least, most float64) *fields.Type {
	return &fields.Type{Form: fields.Whole, Want: want, Min: least, Max: most}
}

func list(elem *fields.Type) *fields.Type { return &fields.Type{Form: fields.Series, Elem: elem} }

// pathName marks types whose relative paths are made absolute.
const pathName = "path"

// argumentName marks the words of commands, the first of which is a path where
// it has a slash in it.
const argumentName = "argument"

// argv is a program with its arguments. A relative path of the program starts at
// the folder of the file that it stands in; arguments stay as they are.
func argv() *fields.Type {
	argument := &fields.Type{
		Form: fields.Text, Name: argumentName, Want: "text", MaxLength: 4096,
		Check: func(s string) error {
			if strings.ContainsRune(s, 0) {
				return errors.New("has a zero byte in it")
			}
			return nil
		},
	}
	return list(argument)
}

// folder is a path of the host. A relative one starts at the folder of the
// file that it stands in.
func folder() *fields.Type {
	return &fields.Type{
		Form: fields.Text, Name: pathName, Want: "a path", NotEmpty: true, MaxLength: 4096,
		Check: func(s string) error {
			if s == "~" || strings.HasPrefix(s, "~/") {
				return errors.New("~ is not expanded; write the whole path")
			}
			return nil
		},
	}
}

// checkWhole reports what is wrong with settings that are right each by
// itself.
func (c *Config) checkWhole(report func(key, message string)) {
	c.checkProxies(report)
	c.checkWarm(report)
	type idRange struct {
		engine      string
		base, count uint32
	}
	n, o, s, q := &c.Engine.Native, &c.Engine.OCI, &c.Engine.Script, &c.Engine.Qemu
	ranges := []idRange{{"engine.native", n.IDBase, n.IDCount}, {"engine.oci", o.IDBase, o.IDCount}, {"engine.script", s.IDBase, s.IDCount}, {"engine.qemu", q.IDBase, q.IDCount}}
	for i, ids := range ranges {
		if last := uint64(ids.base) + uint64(ids.count) - 1; last > maxID {
			report(ids.engine+".id_count", fmt.Sprintf("the last id would be %d; ids end at %d", last, uint32(maxID)))
		}
		for _, other := range ranges[:i] {
			if uint64(other.base) < uint64(ids.base)+uint64(ids.count) && uint64(ids.base) < uint64(other.base)+uint64(other.count) {
				report(ids.engine+".id_base", "the ids are those of "+other.engine+" as well; a sandbox's must be nobody else's")
			}
		}
	}
}
