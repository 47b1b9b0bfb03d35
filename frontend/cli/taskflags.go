package cli

import (
	"encoding/csv"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/caissonrun/caisson"
)

// taskFlags are the flags of run that describe a task. On a document they are
// put over it: single values replace its own, lists and mappings are added to.
type taskFlags struct {
	engine, image, name     string
	workdir, user           string
	hostname, stopSignal    string
	timeout, grace, keep    caisson.Duration
	forkable                bool
	env, limits, secrets    []string
	inputs, outputs, mounts []string
	network, proxies        []string
	retry                   string
	set                     func(name string) bool // was the flag given
	lookup                  func(name string) (string, bool)
}

func (f *taskFlags) register(flags *pflag.FlagSet, lookup func(string) (string, bool)) {
	f.set, f.lookup = flags.Changed, lookup
	flags.StringVar(&f.name, "name", "", "call the task so")
	flags.StringVar(&f.engine, "engine", "", "run it in this `engine`, see caisson engines")
	flags.StringVar(&f.image, "image", "", "run it in this `image`")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME to take the caller's")
	flags.StringArrayVar(&f.limits, "limit", nil, "bound what it may use: `WHAT=AMOUNT` with cpus, memory, pids, disk, log or files")
	flags.StringArrayVar(&f.inputs, "input", nil, "bring data in: `FROM[=TO]`; TO is in/ and FROM's last part if left out")
	flags.StringArrayVar(&f.outputs, "output", nil, "take what matches out: `GLOB=TO`; TO is a folder if it ends in /")
	flags.StringArrayVar(&f.mounts, "mount", nil, "mount: `type=TYPE,target=PATH`[,source=SOURCE][,readonly][,OPTION=VALUE]")
	flags.StringArrayVar(&f.secrets, "secret", nil, "give it a secret: `NAME=FROM`[,as=file][,once][,broker=HOST[,header=H]] with FROM env:NAME or file:PATH")
	flags.StringArrayVar(&f.network, "network", nil, "what it can reach: none (default), default, host, `MODE` or allow=HOST:PORT,...")
	flags.StringArrayVar(&f.proxies, "proxy", nil, "let it reach an upstream of the configuration as http://NAME/: `NAME=UPSTREAM`")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "start it in this `folder`")
	flags.StringVarP(&f.user, "user", "u", "", "run it as `UID[:GID]`")
	flags.StringVar(&f.hostname, "hostname", "", "the `name` that it sees as its host's")
	durationVar(flags, &f.timeout, "timeout", "end it after this time")
	durationVar(flags, &f.grace, "grace", "what it gets between the stop signal and the kill")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "the `signal` that asks it to end")
	durationVar(flags, &f.keep, "keep", "keep the sandbox so long after a failure")
	flags.BoolVar(&f.forkable, "forkable", false, "keep all of it inside of its sandbox, so that that can be forked")
	flags.StringVar(&f.retry, "retry", "", "try again after a failure: `LIMIT`[,delay=1s][,factor=2]")
}

// apply puts what was given over task.
func (f *taskFlags) apply(task *caisson.Task) error {
	f.applyValues(task)
	for _, step := range []func(*caisson.Task) error{
		f.applyEnv, f.applyLimits, f.applyInputs, f.applyOutputs,
		f.applyMounts, f.applySecrets, f.applyNetwork, f.applyProxies, f.applyRetry,
	} {
		if err := step(task); err != nil {
			return err
		}
	}
	return nil
}

func (f *taskFlags) applyValues(task *caisson.Task) {
	for _, v := range []struct {
		flag     string
		from, to *string
	}{
		{"name", &f.name, &task.Name},
		{"engine", &f.engine, &task.Engine},
		{"image", &f.image, &task.Image},
		{"workdir", &f.workdir, &task.Workdir},
		{"user", &f.user, &task.User},
		{"hostname", &f.hostname, &task.Hostname},
		{"stop-signal", &f.stopSignal, &task.StopSignal},
	} {
		if f.set(v.flag) {
			*v.to = *v.from
		}
	}
	if f.set("forkable") {
		task.Forkable = f.forkable
	}
	for _, v := range []struct {
		flag     string
		from, to *caisson.Duration
	}{
		{"timeout", &f.timeout, &task.Timeout},
		{"grace", &f.grace, &task.Grace},
		{"keep", &f.keep, &task.Keep},
	} {
		if f.set(v.flag) {
			*v.to = *v.from
		}
	}
}

func (f *taskFlags) applyEnv(task *caisson.Task) error {
	env, err := parseEnv(f.env, f.lookup)
	if err != nil {
		return err
	}
	if task.Env == nil && len(env) > 0 {
		task.Env = map[string]string{}
	}
	maps.Copy(task.Env, env)
	return nil
}

// parseEnv reads NAME=VALUE, or NAME for the value that the caller has. A
// caller who has none is told so instead of the task running without it.
func parseEnv(list []string, lookup func(string) (string, bool)) (map[string]string, error) {
	env := make(map[string]string, len(list))
	for _, entry := range list {
		name, value, ok := strings.Cut(entry, "=")
		if name == "" {
			return nil, usagef("--env %q: no name, use NAME=VALUE", entry)
		}
		if !ok {
			if value, ok = lookup(name); !ok {
				return nil, usagef("--env %s: you have no such variable, use %s=VALUE", clean(name), clean(name))
			}
		}
		env[name] = value
	}
	return env, nil
}

func (f *taskFlags) applyLimits(task *caisson.Task) error {
	for _, list := range f.limits {
		for _, entry := range strings.Split(list, ",") {
			what, amount, ok := strings.Cut(entry, "=")
			if !ok {
				return usagef("--limit %q: use WHAT=AMOUNT, such as memory=64m", entry)
			}
			if err := setLimit(&task.Limits, what, amount); err != nil {
				return usagef("--limit %q: %w", entry, err)
			}
		}
	}
	return nil
}

func setLimit(limits *caisson.Limits, what, amount string) error {
	switch what {
	case "cpus":
		return limits.CPUs.UnmarshalText([]byte(amount))
	case "memory":
		return limits.Memory.UnmarshalText([]byte(amount))
	case "disk":
		return limits.Disk.UnmarshalText([]byte(amount))
	case "log":
		return limits.Log.UnmarshalText([]byte(amount))
	case "pids":
		return setCount(&limits.PIDs, amount)
	case "files":
		return setCount(&limits.Files, amount)
	}
	return fmt.Errorf("no such limit, use cpus, memory, pids, disk, log or files")
}

func setCount(to *int64, text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return fmt.Errorf("not a whole number of at least 1")
	}
	*to = n
	return nil
}

// applyInputs splits at the last "=", because URLs hold some and a path in the
// work folder can do without.
func (f *taskFlags) applyInputs(task *caisson.Task) error {
	for _, entry := range f.inputs {
		from, to := entry, ""
		if i := strings.LastIndexByte(entry, '='); i >= 0 {
			from, to = entry[:i], entry[i+1:]
		} else {
			to = path.Join("in", path.Base(strings.TrimRight(withoutQuery(from), "/")))
		}
		if from == "" || to == "" {
			return usagef("--input %q: use FROM=TO, such as ./alice.txt=in/alice.txt", entry)
		}
		task.Inputs = append(task.Inputs, caisson.Input{From: asURL(from), To: to})
	}
	return nil
}

// applyOutputs splits at the first "=", for the same reason.
func (f *taskFlags) applyOutputs(task *caisson.Task) error {
	for _, entry := range f.outputs {
		glob, to, ok := strings.Cut(entry, "=")
		if !ok || glob == "" || to == "" {
			return usagef("--output %q: use GLOB=TO, such as 'out/*.txt=./results/'", entry)
		}
		task.Outputs = append(task.Outputs, caisson.Output{Path: glob, To: asURL(to)})
	}
	return nil
}

// schemeOf matches what makes a text a URL rather than a path. One letter and
// a colon is no scheme that anybody has.
var schemeOf = regexp.MustCompile(`^[a-z][a-z0-9+.-]+:`)

// asURL lets a path be written without its scheme.
func asURL(s string) string {
	if schemeOf.MatchString(s) {
		return s
	}
	return "file:" + s
}

func withoutQuery(from string) string {
	if !strings.Contains(from, "://") {
		return strings.TrimPrefix(from, "file:")
	}
	if i := strings.IndexAny(from, "?#"); i >= 0 {
		from = from[:i]
	}
	return from
}

func (f *taskFlags) applyMounts(task *caisson.Task) error {
	for _, entry := range f.mounts {
		m, err := parseMount(entry)
		if err != nil {
			return usagef("--mount %q: %w", entry, err)
		}
		task.Mounts = append(task.Mounts, m)
	}
	return nil
}

// parseMount reads Docker's form of a mount: comma separated pairs, in which a
// value with a comma stands in double quotes. What is not a field of every
// mount is an option of its type.
func parseMount(entry string) (caisson.Mount, error) {
	var m caisson.Mount
	fields, err := csv.NewReader(strings.NewReader(entry)).Read()
	if err != nil {
		return m, fmt.Errorf("%w; use type=TYPE,target=PATH", err)
	}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		switch key {
		case "type":
			m.Type = value
		case "source", "src":
			m.Source = value
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			if m.ReadOnly = true; ok {
				if m.ReadOnly, err = strconv.ParseBool(value); err != nil {
					return m, fmt.Errorf("%s: use true or false", key)
				}
			}
		case "":
			return m, fmt.Errorf("an empty part")
		default:
			if m.Opts == nil {
				m.Opts = map[string]string{}
			}
			m.Opts[key] = value
		}
	}
	if m.Type == "" || m.Target == "" {
		return m, fmt.Errorf("type and target are needed, such as type=tmpfs,target=/fast")
	}
	return m, nil
}

func (f *taskFlags) applySecrets(task *caisson.Task) error {
	for _, entry := range f.secrets {
		name, rest, _ := strings.Cut(entry, "=")
		if name == "" {
			return usagef("--secret: no name, use NAME=env:VARIABLE")
		}
		secret, err := parseSecret(name, rest)
		if err != nil {
			return usagef("--secret %s: %w", clean(name), err)
		}
		if task.Secrets == nil {
			task.Secrets = map[string]caisson.Secret{}
		}
		task.Secrets[name] = secret
	}
	return nil
}

// parseSecret reads what stands behind a secret's name.
func parseSecret(name, text string) (caisson.Secret, error) {
	parts := strings.Split(text, ",")
	secret := caisson.Secret{From: parts[0]}
	if secret.From == "" {
		secret.From = "env:" + name
	}
	header := ""
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch {
		case part == "as=env", part == "as=file":
			secret.As = value
		case part == "once":
			secret.Once = true
		case key == "broker" && value != "":
			secret.Broker = &caisson.Broker{Host: value}
		case key == "header" && value != "":
			header = value
		default:
			return secret, fmt.Errorf("%q is neither as=env, as=file, once, broker=HOST nor header=NAME", part)
		}
	}
	if header != "" && secret.Broker == nil {
		return secret, fmt.Errorf("header=%s needs broker=HOST beside it", header)
	}
	if secret.Broker != nil {
		secret.Broker.Header = header
	}
	return secret, nil
}

// applyNetwork takes a mode, or an allow-list whose parts may stand in several
// flags.
func (f *taskFlags) applyNetwork(task *caisson.Task) error {
	var allow []string
	for _, entry := range f.network {
		list, ok := strings.CutPrefix(entry, "allow=")
		switch {
		case ok && list == "", entry == "", entry == caisson.NetworkAllow:
			return usagef("--network %q: use none, default, host, allow=HOST:PORT or a network's name", entry)
		case len(f.network) > 1 && !ok:
			return usagef("--network %q: only allow=HOST:PORT can stand beside another --network", entry)
		case ok:
			allow = append(allow, strings.Split(list, ",")...)
			task.Network = caisson.Network{Mode: caisson.NetworkAllow, Allow: allow}
		default:
			task.Network = caisson.Network{Mode: entry}
		}
	}
	return nil
}

func (f *taskFlags) applyProxies(task *caisson.Task) error {
	for _, entry := range f.proxies {
		name, upstream, _ := strings.Cut(entry, "=")
		if name == "" || upstream == "" {
			return usagef("--proxy %q: use NAME=UPSTREAM, such as git=git", entry)
		}
		if task.Proxies == nil {
			task.Proxies = map[string]caisson.Proxy{}
		}
		task.Proxies[name] = caisson.Proxy{Upstream: upstream}
	}
	return nil
}

func (f *taskFlags) applyRetry(task *caisson.Task) error {
	if !f.set("retry") {
		return nil
	}
	parts := strings.Split(f.retry, ",")
	limit, err := strconv.Atoi(parts[0])
	if err != nil || limit < 0 {
		return usagef("--retry %q: use a number of tries after the first, such as 2,delay=1s", f.retry)
	}
	task.Retry.Limit = limit
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "delay":
			err = task.Retry.Delay.UnmarshalText([]byte(value))
		case "factor":
			task.Retry.Factor, err = strconv.ParseFloat(value, 64)
		default:
			err = fmt.Errorf("%q is neither delay=DURATION nor factor=NUMBER", part)
		}
		if err != nil {
			return usagef("--retry %q: %w", f.retry, err)
		}
	}
	return nil
}
