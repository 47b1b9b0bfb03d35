package config

import "github.com/caissonrun/caisson/internal/fields"

// Script is the section [engine.script].
type Script struct {
	Program   []string          `json:"program"`           // argv of the program that every task runs; empty: none
	Schema    string            `json:"schema,omitempty"`  // file with the JSON Schema of tasks' options
	Check     []string          `json:"check"`             // arguments with which the program must succeed in a probe
	Files     []string          `json:"files"`             // of the host, that the program sees beside itself
	Secrets   map[string]string `json:"secrets,omitempty"` // files of the host, by the names that they have inside
	Network   string            `json:"network,omitempty"` // none or host; empty: the engine's default
	Isolation string            `json:"isolation"`         // full or none
	UID       int               `json:"uid,omitempty"`     // of the program; 0: the engine's default
	GID       int               `json:"gid,omitempty"`     // that user's group; 0: the engine's default
	IDBase    uint32            `json:"id_base"`           // first id of the host for sandboxes
	IDCount   uint32            `json:"id_count"`          // how many ids of the host
}

func defaultScript() Script { return Script{IDBase: 1946222592, IDCount: 65536, Isolation: "full"} }

func scriptSection() *fields.Type {
	id := func() *fields.Type { return whole("an id, 0 to 2147483646", 0, 1<<31-2) }
	check := list(&fields.Type{Form: fields.Text, Want: "text"})
	return section("settings of the engine script",
		fields.Field{
			Name: "program", Type: argv(), Default: "none: the engine is not usable", Also: []string{"command", "cmd"},
			Examples: []any{[]any{"/usr/local/bin/sign"}},
			Doc:      "The program that every task runs, with its arguments. A relative path starts at this file's folder.",
		},
		fields.Field{
			Name: "schema", Type: folder(), Default: "none", Examples: []any{"/etc/caisson/sign.schema.json"},
			Doc: "The file with the JSON Schema of what tasks may ask the program for. It is needed if there is a program.",
		},
		fields.Field{
			Name: "check", Type: check, Default: "none", Examples: []any{[]any{"--check"}},
			Doc: "Arguments behind `program` with which it must succeed, without a payload, for the engine to be usable. It is tried by " +
				"`caisson engines`, every few minutes, and after a fatal error.",
		},
		fields.Field{
			Name: "files", Type: list(folder()), Default: "none", Examples: []any{[]any{"/etc/sign/settings.ini"}},
			Doc: "Files and folders of the host that the program sees beside itself, read-only, in `/script`.",
		},
		fields.Field{
			Name: "secrets", Type: &fields.Type{Form: fields.Table, Want: "a file for each name", Elem: folder()},
			Default: "none", Examples: []any{map[string]any{"key": "/etc/caisson/sign.key"}},
			Doc: "Files of the host by names. The program finds their contents in `/run/secrets/NAME`, whoever may read the file on the " +
				"host, and they are redacted in logs.",
		},
		fields.Field{
			Name: "network", Type: &fields.Type{Form: fields.Text, Enum: []string{"none", "host"}},
			Default: "none; with isolation none the host's", Doc: "The program's network.",
		},
		fields.Field{
			Name: "isolation", Type: &fields.Type{Form: fields.Text, Enum: []string{"full", "none"}},
			Default: "full", Doc: "How the program runs: with full isolation, or as a plain process of the host.",
		},
		fields.Field{
			Name: "uid", Type: id(), Default: "1000, or the caller with isolation none",
			Doc: "Who the program runs as: in the sandbox, or on the host with isolation none. 0 is the default.",
		},
		fields.Field{Name: "gid", Type: id(), Default: "as for uid", Doc: "The group of that user."},
		fields.Field{
			Name: "id_base", Type: whole("an id of the host, 65536 to 4294901760", 65536, 1<<32-65536), Default: "1946222592",
			Doc: "As root, the first user and group id of the host that is given to sandboxes. The range must belong to nobody else.",
		},
		fields.Field{
			Name: "id_count", Type: whole("a number of ids, 3 or more", 3, 1<<31-1), Default: "65536",
			Doc: "How many ids of the host are given to sandboxes. Each uses three.",
		},
	)
}
