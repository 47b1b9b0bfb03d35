package document

import (
	"github.com/caissonrun/caisson/internal/fields"
)

// dataFields are about what goes in and out.
func dataFields() []fields.Field {
	return []fields.Field{
		{
			Name: "inputs", Type: list(inputType()), Also: []string{"input", "artifacts"},
			Examples: []any{[]any{map[string]any{"from": "file:./data.csv", "to": "in/data.csv"}}},
			Doc:      "Data that is brought into the work folder before anything runs, fresh for each attempt.",
		},
		{
			Name: "outputs", Type: list(outputType()), Also: []string{"output", "results"},
			Examples: []any{[]any{map[string]any{"path": "out/*.csv", "to": "file:./results/"}}},
			Doc: "Data that is taken out of the work folder afterwards. Each file appears at its place " +
				"completely or not at all.",
		},
		{
			Name: "mounts", Type: list(mountType()), Also: []string{"mount", "volumes", "binds"},
			Examples: []any{[]any{map[string]any{"type": "volume", "target": "/scratch"}}},
			Doc: "Places in the sandbox whose contents come from outside of it. All steps of an attempt " +
				"share them.",
		},
	}
}

func inputType() *fields.Type {
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with from (or text) and to",
		Fields: []fields.Field{
			{
				Name: "from", Type: location(), Also: []string{"source", "src", "url"},
				Examples: []any{"file:./data.csv", "https://example.com/data.csv", "git+https://example.com/team/repo.git"},
				Doc: "Where the data is. A relative `file:` path starts at the document's folder. A folder " +
					"brings everything that is in it.",
			},
			{
				Name: "text",
				Type: &fields.Type{Form: fields.Text, Want: "text, the file's contents", Raw: true, Private: true},
				Also: []string{"content", "contents", "inline"}, Doc: "The contents themselves, instead of `from`.",
			},
			{
				Name: "to", Type: workPath(), Required: true,
				Also:     []string{"target", "dest", "destination", "path"},
				Examples: []any{"in/data.csv"}, Doc: "Where the data goes, in the work folder.",
			},
			{
				Name: "sha256", Type: digest(), Also: []string{"checksum", "digest"},
				Doc: "The digest that the file must have. Nothing with another one is given to the task.",
			},
			{
				Name: "writable", Type: toggle(), Default: "false",
				Doc: "The task may change the file. It then gets a copy of its own.",
			},
			{
				Name: "optional", Type: toggle(), Default: "false",
				Doc: "It is no error if there is no such data.",
			},
			{Name: "max_size", Type: size(), Default: "no limit", Doc: "Larger data is refused."},
			{
				Name: "mode", Type: mode(), Default: "as at the source, or 0644", Also: []string{"permissions"},
				Examples: []any{"0755"},
				Doc:      "The file's permission bits, octal and in quotes.",
			},
			{Name: "git", Type: gitType(), Doc: "How a git repository is fetched."},
		},
		Rules: []fields.Rule{
			fields.Exclusive("from", "text"),
			fields.AnyOf(`the data is missing; give its URL as "from" or the contents as "text"`, "from", "text"),
			fields.Custom(checkGitInput),
		},
	}
}

func gitType() *fields.Type {
	ref := word("a branch, tag or commit", `[^-\x00-\x20\x7F~^:?*\[\\][^\x00-\x20\x7F~^:?*\[\\]*`)
	ref.MaxLength, ref.Check = 255, checkRef
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with ref, depth, folder and submodules",
		Fields: []fields.Field{
			{
				Name: "ref", Type: ref, Default: "the default branch",
				Also: []string{"branch", "tag", "commit", "revision"},
				Doc:  "A branch, tag or commit.",
			},
			{
				Name: "depth", Type: whole("a number of commits, or -1 for all", -1, 1<<31-1),
				Default: "one commit",
				Doc:     "How much history is fetched: a number of commits, 0 for one, -1 for all.",
			},
			{
				Name: "folder", Type: workPath(), Default: "all of it",
				Also: []string{"subfolder", "subdir", "path"},
				Doc:  "Only this folder of the repository.",
			},
			{Name: "submodules", Type: toggle(), Default: "false", Doc: "Fetches submodules too."},
		},
	}
}

func outputType() *fields.Type {
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with path and to",
		Fields: []fields.Field{
			{
				Name: "path", Type: glob(), Required: true, Also: []string{"from", "source", "glob", "pattern"},
				Examples: []any{"out/*.csv", "out/**"},
				Doc: "What is taken, in the work folder: a file, a folder with everything in it, or a pattern " +
					"with `*`, `?`, `[a-z]`, `{a,b}` and `**` for any depth.",
			},
			{
				Name: "to", Type: location(), Required: true,
				Also:     []string{"dest", "destination", "target", "url"},
				Examples: []any{"file:./results/"},
				Doc:      "Where it goes. If it ends in `/` it is a folder, which is made if need be.",
			},
			{
				Name: "when", Type: enum("success", "failure", "always"), Default: "success",
				Also: []string{"on", "if"},
				Doc:  "After which end it is taken.",
			},
			{Name: "optional", Type: toggle(), Default: "false", Doc: "It is no error if nothing matches."},
			{
				Name: "max_size", Type: size(), Default: "no limit",
				Doc: "More than this, of all that matches together, is refused.",
			},
		},
		Rules: []fields.Rule{fields.Custom(checkOutput)},
	}
}

// mountName is the name of a volume or cache.
const mountName = `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`

func mountType() *fields.Type {
	value := &fields.Type{
		Form: fields.Text, Want: "text", Numbers: fields.AnyNumbers, Bools: true, Private: true,
	}
	opts := &fields.Type{
		Form: fields.Table, Elem: value, Want: "a mapping of option names to values",
		Key: word("an option's name", `[A-Za-z0-9_.-]+`),
	}
	named := func(kind string) fields.Rule {
		return fields.Rule{Schema: whereType(kind, map[string]any{
			"source": map[string]any{"pattern": `^(?:` + mountName + `)$`},
		})}
	}
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with type and target",
		Fields: []fields.Field{
			{
				Name:     "type",
				Type:     word("a mount's type: volume, cache, bind, tmpfs or a registered one", `[a-z][a-z0-9-]{0,31}`),
				Required: true, Examples: []any{"volume", "cache", "bind", "tmpfs"},
				Doc: "`volume` is a folder of the task's own or, with `source`, a named one made by `caisson " +
					"volume create`. `cache` is a named folder that is made on first use and outlives tasks. " +
					"`bind` is a path of the host. `tmpfs` is memory.",
			},
			{
				Name: "source", Type: line("a name, or a path of the host"),
				Also:     []string{"src", "from", "name"},
				Examples: []any{"build-cache", "/data"},
				Doc: "The name of a volume or cache, or the path to bind; a relative one starts at the " +
					"document's folder.",
			},
			{
				Name: "target", Type: absolute(), Required: true,
				Also:     []string{"dst", "destination", "to", "path"},
				Examples: []any{"/scratch"}, Doc: "Where it appears inside: an absolute path.",
			},
			{
				Name: "readonly", Type: toggle(), Default: "false", Also: []string{"ro", "read_only"},
				Doc: "Nothing in it can be changed from inside, by root neither.",
			},
			{
				Name: "opts", Type: opts, Also: []string{"options"},
				Examples: []any{map[string]any{"size": "64m", "mode": "0700"}},
				Doc: "Options of this type; unknown ones are refused. `tmpfs` has `size` (bytes) and `mode` " +
					"(octal, in quotes). A `volume` without `source` has `mode`, and `nocopy`, which is true: " +
					"volumes begin empty. `bind` has `propagation`, of which there is `private`.",
			},
		},
		Rules: []fields.Rule{
			fields.Where("type", "bind", []string{"source"}, nil),
			fields.Where("type", "cache", []string{"source"}, nil),
			fields.Where("type", "tmpfs", nil, []string{"source"}),
			named("volume"), named("cache"),
			{Schema: whereType("tmpfs", map[string]any{"opts": map[string]any{
				"additionalProperties": false,
				"properties": map[string]any{
					"size": map[string]any{"type": []string{"string", "integer"}},
					"mode": map[string]any{"type": "string", "pattern": `^(?:` + tmpfsMode + `)$`},
				},
			}})},
			fields.Custom(checkMount),
		},
	}
}

// tmpfsMode are the permission bits of a tmpfs, sticky bit included.
const tmpfsMode = `0?[01]?[0-7]{3}`

// whereType is a schema for the properties of mounts of one type.
func whereType(kind string, props map[string]any) map[string]any {
	return map[string]any{
		"if": map[string]any{
			"properties": map[string]any{"type": map[string]any{"const": kind}},
			"required":   []string{"type"},
		},
		"then": map[string]any{"properties": props},
	}
}
