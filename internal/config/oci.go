package config

import "github.com/caissonrun/caisson/internal/fields"

// OCI is the section [engine.oci].
type OCI struct {
	Runtime              string   `json:"runtime"`                // builtin, a program's name or its path; empty: the first of Prefer that works
	Prefer               []string `json:"prefer"`                 // runtimes, most wanted first; empty: the engine's own order
	EnforceFloors        bool     `json:"enforce_floors"`         // runtimes older than the last known escape are refused
	AllowRuntimes        bool     `json:"allow_runtimes"`         // tasks may choose another one of Prefer
	NonRoot              bool     `json:"nonroot"`                // a program that would be root becomes UID and GID
	UID                  int      `json:"uid,omitempty"`          // 0: the engine's default
	GID                  int      `json:"gid,omitempty"`          // 0: the engine's default
	IDBase               uint32   `json:"id_base"`                // first id of the host for sandboxes
	IDCount              uint32   `json:"id_count"`               // how many ids of the host
	VolumesEnabled       bool     `json:"volumes_enabled"`        // options.volumes may name absolute paths
	AllowHostNetwork     bool     `json:"allow_host_network"`     // tasks may ask for network host
	CNIConfigDir         string   `json:"cni_config_dir"`         // of the networks that tasks can name; empty: the usual place
	CNIPluginDirs        []string `json:"cni_plugin_dirs"`        // of their plugins; empty: the usual places
	DefaultSubnet        string   `json:"default_subnet"`         // of sandboxes on network default; empty: the engine's
	AllowDevices         []string `json:"allow_devices"`          // that tasks may ask for, or folders of them
	AllowCaps            []string `json:"allow_caps"`             // that options.cap_add may name
	AllowInsecureOptions bool     `json:"allow_insecure_options"` // tasks may switch off protection of the run
}

func defaultOCI() OCI { return OCI{NonRoot: true, IDBase: 1879113728, IDCount: 1024 * 65536} }

func ociSection() *fields.Type {
	id := func() *fields.Type { return whole("an id, 0 to 65535", 0, 65535) }
	text := func(want string) *fields.Type { return &fields.Type{Form: fields.Text, Want: want, NotEmpty: true} }
	return section("settings of the engine oci",
		fields.Field{
			Name: "runtime", Type: &fields.Type{Form: fields.Text, Want: "builtin, the name of a program, or its absolute path"},
			Default: "the first of `prefer` that works", Examples: []any{"crun", "builtin"},
			Doc: "The OCI runtime that makes sandboxes; `builtin` is Caisson itself.",
		},
		fields.Field{
			Name: "prefer", Type: list(text("the name or path of a runtime")), Default: "the engine's own order",
			Also: []string{"runtimes"}, Examples: []any{[]any{"crun", "builtin"}}, Doc: "OCI runtimes, most wanted first.",
		},
		fields.Field{
			Name: "enforce_floors", Type: toggle(), Default: "false",
			Doc: "Refuses runtimes of a version in which an escape is known. Otherwise `caisson engines` warns of them: distributions " +
				"mend old versions without giving them a new number.",
		},
		fields.Field{
			Name: "allow_runtimes", Type: toggle(), Default: "false",
			Doc: "Lets tasks choose another one of `prefer`: `options: {runtime: runsc}`.",
		},
		fields.Field{
			Name: "nonroot", Type: toggle(), Default: "true", Also: []string{"sandbox"},
			Doc: "A user that is root in any spelling, or none, in the image or in the task, becomes `uid` and `gid`. An image with another user " +
				"keeps it. Without it programs may be root of their sandbox, with the capabilities that they have with Docker.",
		},
		fields.Field{Name: "uid", Type: id(), Default: "1000", Doc: "Who programs run as that would be root. 0 is the default."},
		fields.Field{Name: "gid", Type: id(), Default: "1000", Doc: "The group of that user."},
		fields.Field{
			Name: "id_base", Type: whole("an id of the host, 65536 to 4294901760", 65536, 1<<32-65536), Default: "1879113728",
			Doc: "As root, the first user and group id of the host that is given to sandboxes. The range must belong to nobody else.",
		},
		fields.Field{
			Name: "id_count", Type: whole("a number of ids, 65536 or more", 65536, 1<<31-1), Default: "67108864",
			Doc: "How many ids of the host are given to sandboxes. Each uses 65536.",
		},
		fields.Field{
			Name: "volumes_enabled", Type: toggle(), Default: "false",
			Doc: "Lets tasks of every front door bind any path of the host: `options: {volumes: [\"/data:/data:ro\"]}`. Relative ones, which lie in the " +
				"task's work folder, always may be bound.",
		},
		fields.Field{
			Name: "allow_host_network", Type: toggle(), Default: "false",
			Doc: "Lets tasks ask for the host's network: `network: host`.",
		},
		cniConfigDir(), cniPluginDirs(), defaultSubnet(),
		fields.Field{
			Name: "allow_devices", Type: list(folder()), Default: "none", Also: []string{"devices"}, Examples: []any{[]any{"/dev/fuse"}},
			Doc: "Devices of the host, or folders of them, that tasks may ask for.",
		},
		fields.Field{
			Name: "allow_caps", Type: list(text("a capability such as NET_ADMIN")), Default: "none", Also: []string{"caps"},
			Examples: []any{[]any{"NET_ADMIN"}},
			Doc:      "Linux capabilities that tasks whose program is root may add: `options: {cap_add: [NET_ADMIN]}`.",
		},
		fields.Field{
			Name: "allow_insecure_options", Type: toggle(), Default: "false",
			Doc: "Lets tasks switch off protection of the run: `options: {insecure_options: [seccomp]}`, `paths`, `capabilities`, `all-run`, `all`.",
		},
	)
}

// cniConfigDir and the next two are fields of engines that attach sandboxes to
// networks.
func cniConfigDir() fields.Field {
	return fields.Field{
		Name: "cni_config_dir", Type: folder(), Default: "`/etc/cni/net.d`", Also: []string{"cni_config"},
		Doc: "The folder of the networks that tasks can name: CNI configurations (`*.conflist`, `*.conf`, `*.json`). Each is what " +
			"the operator makes of it, with all that it reaches.",
	}
}

func cniPluginDirs() fields.Field {
	return fields.Field{
		Name: "cni_plugin_dirs", Type: list(folder()), Default: "`/opt/cni/bin`, `/usr/lib/cni`, `/usr/libexec/cni`", Also: []string{"cni_path"},
		Doc: "The folders in which the plugins of those networks are looked for, in order.",
	}
}

func defaultSubnet() fields.Field {
	return fields.Field{
		Name: "default_subnet", Type: &fields.Type{Form: fields.Text, Want: "a private IPv4 network such as 10.213.0.0/16", NotEmpty: true},
		Default: "`10.213.0.0/16`", Also: []string{"subnet"},
		Doc: "The private network of which sandboxes with `network: default` get their addresses. Nothing else on the host may be in it.",
	}
}
