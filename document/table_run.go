package document

import "github.com/caissonrun/caisson/internal/fields"

// networkFields are about what the sandbox reaches and what reaches it.
func networkFields() []fields.Field {
	proxyName := word("3 to 22 letters a to z", `[a-z]{3,22}`)
	proxyName.Check, proxyName.Deny = checkProxyName, fields.Match("localhost")
	proxies := &fields.Type{
		Form: fields.Table, Want: "a mapping of names to upstreams", Key: proxyName,
		Elem: &fields.Type{
			Form: fields.Object, Want: "a mapping with upstream",
			Fields: []fields.Field{{
				Name: "upstream", Type: line("the name of one of the operator's upstreams"), Required: true,
				Doc: "The name of one of the operator's upstreams.",
			}},
		},
	}
	return []fields.Field{
		{
			Name: "network", Type: networkType(), Default: "none", Also: []string{"networks", "net"},
			Examples: []any{"none", map[string]any{"allow": []any{"example.com:443"}}},
			Doc: "What the sandbox can reach. `none`: itself. `default`: the outside, but not this host nor " +
				"private addresses. `host`: all that this host can, where the operator permits it. `{allow: " +
				"[host:port]}`: these and nothing else, see [below](#network-1). Another name, or a list of mappings, attaches it to " +
				"networks of the operator's.",
		},
		{
			Name: "ports", Type: list(portType()), Also: []string{"publish", "expose"},
			Examples: []any{[]any{map[string]any{"port": 80, "host_port": 8080}}},
			Doc:      "Ports of the sandbox that can be reached on the host.",
		},
		{Name: "dns", Type: dnsType(), Doc: "How names are resolved inside."},
		{
			Name: "proxies", Type: proxies, Also: []string{"proxy"},
			Examples: []any{map[string]any{"artifacts": map[string]any{"upstream": "artifacts"}}},
			Doc: "HTTP services of the operator's, `[proxy.UPSTREAM]` in the configuration, that the task's programs, and nothing else, reach as " +
				"`http://NAME/`. What the operator has them add, such as a token, never enters the sandbox. A name is 3 to 22 letters a to z.",
		},
		{
			Name: "displays", Type: list(displayType()), Also: []string{"display", "screens"},
			Examples: []any{[]any{map[string]any{"name": "main", "width": 1280, "height": 800}}},
			Doc: "Screens of the sandbox that `caisson display` and `caisson screenshot` show: a machine's own, or VNC servers that the task " +
				"runs, see [displays](#displays).",
		},
	}
}

// name is that of a network, display and the like.
func name(want string) *fields.Type { return word(want, `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`) }

func networkType() *fields.Type {
	value := &fields.Type{Form: fields.Text, Want: "text", Numbers: fields.AnyNumbers, Bools: true}
	attach := list(&fields.Type{
		Form: fields.Object, Want: "a mapping with name, aliases and args",
		Fields: []fields.Field{
			{Name: "name", Type: name("a network's name"), Required: true, Doc: "The network's name."},
			{Name: "aliases", Type: list(hostname()), Doc: "Names of the sandbox in that network."},
			{
				Name: "args", Doc: "Arguments for whoever makes the attachment.",
				Type: &fields.Type{Form: fields.Table, Elem: value, Want: "a mapping of names to values"},
			},
		},
	})
	attach.Least, attach.Want = 1, "a list of networks"
	mode := name("none, default, host, or a network's name")
	mode.Check, mode.Deny = checkNetworkMode, fields.Match("allow")
	return &fields.Type{
		Form: fields.Choice,
		Choices: []*fields.Type{
			mode,
			{
				Form: fields.Object, Want: "a mapping with allow",
				Fields: []fields.Field{{
					Name: "allow", Type: list(endpoint()), Required: true,
					Examples: []any{[]any{"example.com:443", "*.example.org:443", "192.0.2.1:5432"}},
					Doc: "Hosts and ports, as `host:port`; `*.` before a name means all below it, not the name " +
						"itself. Everything else is denied. A name never leads to a private address: such a one has " +
						"to be listed itself.",
				}},
			},
			attach,
		},
	}
}

func portType() *fields.Type {
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with port and host_port",
		Fields: []fields.Field{
			{
				Name: "port", Type: port(1), Required: true, Also: []string{"container_port", "target"},
				Doc: "The port inside.",
			},
			{
				Name: "host_port", Type: port(0), Default: "any that is free",
				Also: []string{"published", "host"},
				Doc:  "The port on the host.",
			},
			{Name: "host_ip", Type: address(), Default: "127.0.0.1", Doc: "The address on the host."},
			{Name: "protocol", Type: enum("tcp", "udp"), Default: "tcp", Doc: "The protocol."},
		},
	}
}

func dnsType() *fields.Type {
	option := word("a resolver option such as ndots:2", `[a-z0-9-]+(:[0-9]+)?`)
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with servers, search and options",
		Fields: []fields.Field{
			{
				Name: "servers", Type: list(address()), Also: []string{"server", "nameservers"},
				Examples: []any{[]any{"192.0.2.53"}},
				Doc:      "Addresses of name servers.",
			},
			{
				Name: "search", Type: list(hostname()), Also: []string{"searches"},
				Doc: "Domains in which short names are looked up.",
			},
			{
				Name: "options", Type: list(option), Also: []string{"opts"}, Examples: []any{[]any{"ndots:2"}},
				Doc: "Options of resolv.conf.",
			},
		},
	}
}

func displayType() *fields.Type {
	pixels := func() *fields.Type { return whole("pixels, 1 to 16384", 1, 16384) }
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with name, and for a VNC server of the task's with socket or port",
		Fields: []fields.Field{
			{Name: "name", Type: name("a display's name"), Required: true, Doc: "The display's name."},
			{Name: "description", Type: line("text"), Doc: "What it shows, for people."},
			{
				Name: "socket", Type: workPath(), Also: []string{"path"}, Examples: []any{"vnc.sock"},
				Doc: "The unix socket, in the work folder, at which a VNC server of the task's listens. It must not ask for a password.",
			},
			{
				Name: "port", Type: port(1), Examples: []any{5900},
				Doc: "The port, on the sandbox's own loopback address, at which a VNC server of the task's listens. Engines without virtual machines need root for it.",
			},
			{
				Name: "width", Type: pixels(), Default: "the engine's choice",
				Doc: "Its width in pixels: a machine's screen prefers it, and of a task's own server it is told.",
			},
			{Name: "height", Type: pixels(), Default: "the engine's choice", Doc: "Its height in pixels."},
		},
		Rules: []fields.Rule{fields.Needs("width", "height"), fields.Needs("height", "width"), fields.Exclusive("socket", "port")},
	}
}

// limitFields bound what the task uses, in amount and in time.
func limitFields() []fields.Field {
	count := func(want string) *fields.Type { return whole(want, 0, 1<<31-1) }
	limits := &fields.Type{
		Form: fields.Object, Want: "a mapping of limits",
		Fields: []fields.Field{
			{
				Name: "cpus", Type: cpus(), Also: []string{"cpu", "cores"}, Examples: []any{"0.5", 2},
				Doc: "Processor time per time, in cores; the finest step is 0.001.",
			},
			{
				Name: "memory", Type: size(), Also: []string{"mem", "ram"}, Examples: []any{"256m"},
				Doc: "Memory of all processes, with page cache and tmpfs. Swap is not added.",
			},
			{
				Name: "pids", Type: count("a number of processes"), Also: []string{"processes", "nproc"},
				Examples: []any{64},
				Doc:      "Processes and threads at once.",
			},
			{
				Name: "disk", Type: size(), Also: []string{"storage"}, Examples: []any{"1g"},
				Doc: "What may be written: work folder, /tmp and root together.",
			},
			{
				Name: "log", Type: size(), Also: []string{"logs", "output"}, Examples: []any{"64m"},
				Default: "`executor.log_limit`",
				Doc:     "The log of each step. What is over it is dropped, and a marker in the log says so.",
			},
			{
				Name: "files", Type: count("a number of files"), Also: []string{"nofile", "open_files"},
				Examples: []any{1024},
				Doc:      "Open files of one process.",
			},
		},
	}
	codes := list(whole("an exit code, 0 to 255", 0, 255))
	codes.Least, codes.Unique = 1, true
	success := &fields.Type{
		Form: fields.Object, Want: "a mapping with codes",
		Fields: []fields.Field{{
			Name: "codes", Type: codes, Default: "[0]", Also: []string{"code", "exit_codes"},
			Examples: []any{[]any{0, 3}},
			Doc:      "Exit codes that count as success.",
		}},
	}
	return []fields.Field{
		{
			Name: "limits", Type: limits, Also: []string{"limit", "resources"},
			Examples: []any{map[string]any{"cpus": "0.5", "memory": "256m"}},
			Doc:      "What the sandbox may use. Every limit is enforced, or the task is refused; 0 is no limit.",
		},
		{
			Name: "timeout", Type: duration(), Default: "none", Also: []string{"time_limit", "deadline"},
			Examples: []any{"10m", 30},
			Doc: "How long the main program may run. Then it gets the stop signal and, after `grace`, " +
				"everything is killed.",
		},
		{
			Name: "grace", Type: duration(), Default: "10s",
			Also: []string{"grace_period", "stop_timeout", "kill_timeout"}, Examples: []any{"10s"},
			Doc: "How long the program has between the stop signal and the kill.",
		},
		{
			Name: "keep", Type: duration(), Default: "0: not at all", Examples: []any{"10m"},
			Doc: "How long the sandbox of the last attempt is kept, from the end of its program on, to look at: of " +
				"the main program, or of the step that failed. `caisson exec` opens it as it was left, with what was " +
				"still running halted, and `caisson cp` reads it. Then it ends by itself; `caisson rm` ends it at once. " +
				"Where an engine can't do that (features: `keep`), its files alone are kept.",
		},
		{
			Name: "forkable", Type: toggle(), Default: "false",
			Doc: "Lets `caisson fork` copy the sandbox while it runs, with its memory: in a virtual machine the work " +
				"folder is then on a disk of the machine's, and files are copied in before and out afterwards, as " +
				"nothing of the host can be shared with two machines. Binds and volumes are refused with it. Engines " +
				"whose forks carry the work folder alone (`caisson engines`) need nothing for it.",
		},
		{
			Name: "retry", Type: retryType(), Also: []string{"retries"},
			Examples: []any{map[string]any{"limit": 2, "delay": "1s"}},
			Doc:      "How a failed attempt is followed by another.",
		},
		{Name: "success", Type: success, Doc: "Which exits of the main program count as success."},
	}
}

func retryType() *fields.Type {
	factor := &fields.Type{Form: fields.Real, Want: "a factor of 1 or more", Min: 1, Max: 1000}
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with limit, delay and factor",
		Fields: []fields.Field{
			{
				Name: "limit", Type: whole("a number of attempts after the first, 0 to 1000", 0, 1000),
				Default: "0",
				Also:    []string{"max", "count", "attempts", "retries"}, Examples: []any{2}, Doc: "How many attempts may follow the first.",
			},
			{
				Name: "delay", Type: duration(), Default: "0",
				Also: []string{"initial_delay", "initialdelay", "wait", "backoff"}, Examples: []any{"1s"},
				Doc: "How long to wait before the second attempt.",
			},
			{
				Name: "factor", Type: factor, Default: "2",
				Also: []string{"scaling_factor", "scalingfactor", "multiplier"}, Examples: []any{2},
				Doc: "By how much the delay grows with each further attempt.",
			},
		},
	}
}

// stepFields are the programs around the main one.
func stepFields() []fields.Field {
	steps := func() *fields.Type { return list(stepType(false)) }
	return []fields.Field{
		{
			Name: "pre", Type: steps(), Also: []string{"before"},
			Examples: []any{[]any{map[string]any{"run": "mkdir out"}}},
			Doc:      "Steps before the main program, in order. One that fails fails the attempt.",
		},
		{
			Name: "post", Type: steps(), Also: []string{"after"},
			Doc: "Steps after the main program, in order, if it succeeded. One that fails fails the attempt.",
		},
		{
			Name: "finally", Type: steps(), Also: []string{"always", "cleanup"},
			Doc: "Steps at the end, after outputs were taken, whatever happened. They can't change success.",
		},
		{
			Name: "sidecars", Type: list(stepType(true)), Also: []string{"sidecar", "services"},
			Doc: "Programs that run beside the main one and are stopped when it has ended.",
		},
	}
}

func stepType(sidecar bool) *fields.Type {
	stepName := word("a name of letters, digits, and . _ -", `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`)
	stepName.Check, stepName.Deny = checkStepName, fields.Match(ownStepNames)
	t := &fields.Type{
		Form: fields.Object, Name: "step", Want: "a mapping with a step's fields",
		Fields: []fields.Field{{
			Name: "name", Type: stepName, Default: "pre-0, post-1 and so on", Examples: []any{"prepare"},
			Doc: "The step's name in logs and results, unique in the task.",
		}},
		Rules: []fields.Rule{
			fields.Exclusive("run", "cmd"),
			fields.AnyOf(`nothing to run; give a script as "run" or a program as "cmd"`, "run", "cmd", "entrypoint", "image"),
			fields.Custom(checkFiles),
		},
	}
	for _, f := range programFields() {
		switch f.Name {
		case "image", "user", "workdir":
			f.Default = "the task's"
		case "env":
			f.Default = "the task's, to which this is added"
		}
		t.Fields = append(t.Fields, f)
	}
	t.Fields = append(t.Fields, fields.Field{
		Name: "timeout", Type: duration(), Default: "none",
		Examples: []any{"1m"}, Doc: "How long the step may run.",
	})
	if sidecar {
		t.Name = "sidecar"
		t.Fields = append(t.Fields, fields.Field{
			Name: "probe", Type: probeType(), Also: []string{"healthcheck", "readiness"},
			Doc: "How to tell that the sidecar is ready; the main program waits for it.",
		})
	}
	return t
}

func probeType() *fields.Type {
	argv := list(&fields.Type{Form: fields.Text, Want: "text", Lines: true, Numbers: fields.AnyNumbers, Bools: true})
	argv.Least = 1
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with cmd, or port and perhaps http",
		Fields: []fields.Field{
			{
				Name: "cmd", Type: argv, Also: []string{"command", "exec"},
				Doc: "A program in the sidecar's sandbox that exits 0 when it is ready.",
			},
			{
				Name: "http", Type: word("a path such as /health", `/[^\x00-\x20\x7F]*`),
				Also: []string{"path", "url"}, Examples: []any{"/health"},
				Doc: "A path on `port` whose GET answers 200 to 399 when it is ready.",
			},
			{
				Name: "port", Type: port(1), Also: []string{"tcp"},
				Doc: "The port for `http`; alone, a port that takes TCP connections when it is ready.",
			},
			{
				Name: "interval", Type: duration(), Default: "1s", Also: []string{"period"},
				Doc: "How long to wait between tries.",
			},
			{Name: "timeout", Type: duration(), Default: "1m", Doc: "For all tries together."},
		},
		Rules: []fields.Rule{
			fields.Exclusive("cmd", "http"), fields.Exclusive("cmd", "port"), fields.Needs("http", "port"),
			fields.AnyOf(`nothing to try; give "cmd", "port", or "http" and "port"`, "cmd", "http", "port"),
		},
	}
}

// secretName is a name that can be a variable's and a file's. The pattern of
// environment variables would allow more, that of files too.
func secretName() *fields.Type {
	return word("a secret's name: letters, digits and _ . -, beginning with a letter or _", `[A-Za-z_][A-Za-z0-9_.-]{0,127}`)
}

func secretFields() []fields.Field {
	from := word(`"env:NAME" or "file:PATH"`, `(env:[^=\x00-\x1F\x7F]+|file:[^\x00-\x1F\x7F]+)`)
	from.Private = true // somebody may put the value itself there
	secret := &fields.Type{
		Form: fields.Object, Want: "a mapping with from and as", Private: true,
		Fields: []fields.Field{
			{
				Name: "from", Type: from, Default: "given by the submitter beside the document",
				Also:     []string{"source", "value"},
				Examples: []any{"env:CI_TOKEN", "file:./token"},
				Doc: "Where the submitter reads the value: a variable of its environment, or a file. " +
					"Values never stand in a document.",
			},
			{
				Name: "as", Type: enum("env", "file"), Default: "env",
				Doc: "How the program gets it: as a variable of the secret's name, or as a file " +
					"`/run/secrets/NAME`.",
			},
			{Name: "once", Type: toggle(), Default: "false", Doc: "The file is gone after it was read once."},
			{
				Name: "broker", Type: brokerType(),
				Doc: "The program gets a placeholder only, and the value is put in its place in requests to one host, " +
					"outside of the sandbox. That host can be reached whatever `network` says.",
			},
		},
		Rules: []fields.Rule{onceNeedsFile(), fields.Exclusive("once", "broker")},
	}
	return []fields.Field{{
		Name: "secrets", Also: []string{"secret"},
		Examples: []any{map[string]any{"TOKEN": map[string]any{"from": "env:CI_TOKEN"}}},
		Type:     &fields.Type{Form: fields.Table, Key: secretName(), Elem: secret, Want: "a mapping of names to secrets"},
		Doc:      "Values that the program may see and nobody else. They are redacted in its log.",
	}}
}

func brokerType() *fields.Type {
	header := word("a header's name", "[A-Za-z0-9!#$%&'*+.^_`|~-]+")
	header.MaxLength = 128
	header.Check, header.Deny = checkBrokerHeader, fields.Match(ownHeaders)
	return &fields.Type{
		Form: fields.Object, Want: "a mapping with host and header",
		Fields: []fields.Field{
			{
				Name: "host", Type: brokerHost(), Required: true, Examples: []any{"api.example.com"},
				Doc: "The host whose requests get the value, with `:PORT` where it is not 443. Without TLS, with " +
					"`http://` before it, whoever is on the way can read the value.",
			},
			{Name: "header", Type: header, Default: "Authorization", Doc: "The header that holds it."},
		},
	}
}
