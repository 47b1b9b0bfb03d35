package document

import (
	"sync"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// table describes the whole document. It is the one source of what Parse
// accepts, of the JSON Schema and of the tables in docs/task.md.
var table = sync.OnceValue(taskType)

func taskType() *fields.Type {
	groups := [][]fields.Field{
		identityFields(), programFields(), formFields(), hostFields(), dataFields(),
		networkFields(), limitFields(), stepFields(), secretFields(),
	}
	t := &fields.Type{Form: fields.Object, Want: "a mapping of a task's fields", Rules: taskRules()}
	for _, g := range groups {
		t.Fields = append(t.Fields, g...)
	}
	t.Rules = append(t.Rules, alone("component", t.Fields, besideComponent))
	return t
}

func identityFields() []fields.Field {
	version := whole("1, the version of the document that this program reads", 1, caisson.DocumentVersion)
	name := line("a name")
	name.MaxLength = 256
	return []fields.Field{
		{
			Name: "version", Type: version, Default: "the newest", Examples: []any{1},
			Doc: "The version of the document's form. A program refuses versions that it does not know.",
		},
		{
			Name: "name", Type: name, Examples: []any{"wordcount"}, Also: []string{"title", "id"},
			Doc: "What people call the task. It is shown in lists and need not be unique.",
		},
		{
			Name: "engine", Type: word("an engine's name such as native or docker", `[a-z][a-z0-9-]{0,31}`),
			Default: "the first usable one in `executor.prefer` that can do all the task asks for",
			Also:    []string{"runtime", "driver", "backend"}, Examples: []any{"native", "docker"},
			Doc: "The engine that makes the sandbox. See `caisson engines` for those that work on this host.",
		},
	}
}

// programFields are those of everything that runs a program: a task and its
// steps.
func programFields() []fields.Field {
	run := &fields.Type{Form: fields.Text, Want: "a script", NotEmpty: true, Lines: true}
	argument := &fields.Type{
		Form: fields.Text, Want: "text", Lines: true, Numbers: fields.AnyNumbers, Bools: true,
	}
	argv := list(argument)
	argv.Least, argv.Want = 1, "a list of the program and its arguments"
	value := &fields.Type{
		Form: fields.Text, Want: "text", Lines: true, Numbers: fields.AnyNumbers, Bools: true, Private: true,
	}
	env := &fields.Type{Form: fields.Table, Key: variable(), Elem: value, Want: "a mapping of names to values"}
	contents := &fields.Type{Form: fields.Text, Want: "text, the file's contents", Raw: true, Private: true}
	files := &fields.Type{
		Form: fields.Table, Want: "a mapping of paths to contents", Elem: contents,
		Key: insidePath("a file's path in the work folder, or an absolute one"),
	}
	return []fields.Field{
		{
			Name: "image", Type: image(), Examples: []any{"busybox:stable"},
			Doc: "The image whose files the sandbox has, for engines that run images. Without `run` or `cmd` " +
				"the image's own program runs.",
		},
		{
			Name: "run", Type: run, Also: []string{"script", "shell"}, Examples: []any{"sort in.txt > out.txt"},
			Doc: "A script for the engine's shell. It runs with the work folder as its current directory.",
		},
		{
			Name: "cmd", Type: argv, Also: []string{"command", "args", "argv", "arguments"},
			Examples: []any{[]any{"sort", "-n", "in.txt"}},
			Doc: "The program and its arguments, passed as they are: no shell is involved. The program is " +
				"looked up in the PATH of the environment.",
		},
		{
			Name: "entrypoint", Type: argv, Examples: []any{[]any{"/bin/tool", "--quiet"}},
			Doc: "Arguments that are put before `cmd`, or before a `run` script, which is then the last " +
				"argument and not given to the shell. It replaces the entry point of an image.",
		},
		{
			Name: "env", Type: env, Also: []string{"environment", "vars", "variables"},
			Examples: []any{map[string]any{"LANG": "C", "THREADS": 4}},
			Doc: "The environment. Nothing is inherited from the host. A name may be anything without `=`; " +
				"names that begin with `CAISSON_` are Caisson's own. Numbers, true and false are taken as " +
				"they are written.",
		},
		{
			Name: "files", Type: files, Examples: []any{map[string]any{"conf/app.ini": "debug=1\n"}},
			Doc: "Small files that are written before the program starts: a path in the work folder (or an " +
				"absolute one, for engines that can) and the contents.",
		},
		{
			Name: "workdir", Type: insidePath("a folder's path"),
			Default: "the work folder for `run`; else the image's; else the work folder",
			Also:    []string{"working_dir", "cwd", "dir", "directory"}, Examples: []any{"src", "/tmp"},
			Doc: "The current directory of the program. A relative path starts at the work folder.",
		},
		{
			Name: "user", Type: user(), Default: "the engine's, which is not root",
			Examples: []any{"1000:1000"},
			Doc:      "Who the program runs as: an id, `uid:gid`, or names that the image knows.",
		},
	}
}

// variable is the name of an environment variable: anything that the kernel
// can pass, but for the names that Caisson gives a meaning.
func variable() *fields.Type {
	t := word("a variable's name: any text without =, not beginning with CAISSON_", `[^=\x00]+`)
	t.Raw, t.Check, t.Deny = true, checkVariable, fields.Contain("^CAISSON_")
	return t
}

func formFields() []fields.Field {
	machine := &fields.Type{
		Form: fields.Choice,
		Choices: []*fields.Type{
			{
				Form: fields.Text, Want: "a disk image", NotEmpty: true, MaxLength: 4096,
				Convert: func(v any) any { return map[string]any{"image": v} },
			},
			machineType(),
		},
	}
	options := &fields.Type{Form: fields.Open, Want: "a mapping of the engine's own options"}
	return []fields.Field{
		componentField(),
		{
			Name: "module", Type: line("a WebAssembly module's path, URL or name in a registry"),
			Also:     []string{"wasm"},
			Examples: []any{"./tool.wasm", "https://example.com/tool.wasm#sha256=HEX", "oci://example.com/team/tool:1"},
			Doc: "A WebAssembly module to run, with `cmd` as its arguments: a path; a URL, which is fetched as an input is, and " +
				"kept for other tasks if it ends in `#sha256=HEX`; or an artifact of a registry, or an image with one layer, to which " +
				"`registry` and the operator's policies apply as to images. A name with a colon is of a registry also without `oci://`.",
		},
		{
			Name: "machine", Type: machine, Also: []string{"vm"},
			Examples: []any{map[string]any{"image": "./disk.qcow2", "type": "q35"}},
			Doc:      "A virtual machine to boot. Text alone is its disk image.",
		},
		{
			Name: "options", Type: options, Also: []string{"opts", "option", "driver_opts"},
			Doc: "What only the chosen engine knows, checked against the engine's own schema: `caisson " +
				"engines --doc`.",
		},
	}
}

func machineType() *fields.Type {
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with a machine's fields",
		Fields: []fields.Field{
			{
				Name: "image", Type: line("a disk image's path, URL or name in a registry"),
				Default: "the task's `image`", Examples: []any{"./disk.qcow2", "https://example.com/vm.tar.zst", "oci://example.com/team/vm:1"},
				Doc: "The disk image: a file; a URL, which needs a digest; or an artifact of a registry, to which `registry` and the operator's " +
					"policies apply as to images. It is a raw disk, a qcow2 that stands alone, or an archive as `caisson vm build` makes it, and is kept as images are. " +
					"A name with a colon is of a registry also without `oci://`. Without it the task's `image` runs in a machine.",
			},
			{Name: "sha256", Type: digest(), Doc: "The digest of that disk image, as it is sent. With it a file is not read again that is kept already."},
			{
				Name: "type", Type: word("a machine type such as microvm or q35", `[a-z0-9][a-z0-9.-]{0,31}`),
				Default: "the best that works", Examples: []any{"microvm", "q35", "pc"}, Doc: "What machine is made.",
			},
			{
				Name: "kernel", Type: word("a kernel's name", `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`),
				Default: "the disk's own, by its boot loader; of an `image`, the operator's choice",
				Doc:     "The name of one of the operator's kernels, to boot without a boot loader.",
			},
			{
				Name: "cmdline", Type: line("kernel arguments"), Examples: []any{"quiet"},
				Doc: "What is added to the kernel's command line, where Caisson boots a kernel: for an `image`, or with `kernel`.",
			},
			{
				Name: "firmware", Type: enum("bios", "uefi"), Default: "the machine type's",
				Doc: "The firmware that boots.",
			},
		},
	}
}

// hostFields are about who and what the sandbox is, and what it gets of the
// host.
func hostFields() []fields.Field {
	devices := list(&fields.Type{Form: fields.Choice, Choices: []*fields.Type{deviceText(), deviceType()}})
	gpus := word(`"all", a count, or key=value pairs such as "device=0,1"`,
		`all|[0-9]{1,3}|[a-z]+=[A-Za-z0-9_.:-]+(,([a-z]+=)?[A-Za-z0-9_.:-]+)*`)
	gpus.Numbers, gpus.Max = fields.WholeNumbers, 999
	return []fields.Field{
		{Name: "group", Type: group(), Doc: "A group that the program belongs to in addition to its user's."},
		{
			Name: "hostname", Type: hostname(), Default: "the engine's choice", Also: []string{"host_name"},
			Doc: "The host name inside.",
		},
		{
			Name: "stop_signal", Type: signal(), Default: "TERM", Examples: []any{"TERM", "SIGINT", 2},
			Doc: "The signal that asks the program to end, with or without SIG, or its number on Linux.",
		},
		{
			Name: "privileged", Type: toggle(), Default: "false",
			Doc: "Gives the sandbox the host's devices and capabilities, where the operator permits it.",
		},
		{
			Name: "devices", Type: devices, Examples: []any{[]any{"/dev/kvm", "/dev/sdc:/dev/xvdc:r"}},
			Doc: "Devices of the host, where the operator permits them: mappings, or text " +
				"`SOURCE[:TARGET[:PERMISSIONS]]`.",
		},
		{
			Name: "gpus", Type: gpus, Examples: []any{"all", 2, "device=0,1"},
			Doc: "Graphics processors: `all`, a count, or Docker's `device=ID,ID`.",
		},
		{
			Name: "registry", Type: registryType(),
			Doc: "Where and how the image is pulled.",
		},
	}
}

func deviceText() *fields.Type {
	t := word("a device as SOURCE[:TARGET[:PERMISSIONS]]",
		`/[^:\x00-\x1F\x7F]+(:/[^:\x00-\x1F\x7F]+(:`+permissions+`)?)?`)
	t.Check, t.Convert = checkDevice, splitDevice
	return t
}

// permissions are r, w and m, each at most once, in this order.
const permissions = `r|rw|rwm|rm|w|wm|m`

func deviceType() *fields.Type {
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with a device's fields",
		Fields: []fields.Field{
			{
				Name: "source", Type: absolute(), Required: true, Examples: []any{"/dev/kvm"},
				Doc: "The device on the host.",
			},
			{Name: "target", Type: absolute(), Default: "as `source`", Doc: "The device inside."},
			{
				Name: "permissions", Type: word(`"r", "w" and "m" (make) in this order`, permissions),
				Default: "rw",
				Doc:     "What the program may do with it: read, write, make nodes.",
			},
		},
	}
}

func registryType() *fields.Type {
	password := secretName()
	password.Private = true // somebody may put the password itself there
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with username, password and pull",
		Fields: []fields.Field{
			{Name: "username", Type: line("a user's name"), Doc: "The user's name at the registry."},
			{
				Name: "password", Type: password,
				Doc: "The name of the secret (see `secrets`) that holds the password. The password itself " +
					"never stands in a document.",
			},
			{
				Name: "pull", Type: enum("missing", "always", "never"), Default: "missing",
				Doc: "When the image is pulled.",
			},
		},
		Rules: []fields.Rule{fields.Needs("username", "password"), fields.Needs("password", "username")},
	}
}
