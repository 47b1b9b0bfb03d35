package document

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// taskRules are about fields of a task that must agree with each other.
func taskRules() []fields.Rule {
	const nothing = `nothing to run; give a script as "run", a program as "cmd", or an "image", "module", "machine", "component" or "options"`
	return []fields.Rule{
		fields.AnyOf(nothing, "run", "cmd", "entrypoint", "image", "module", "machine", "component", "options"),
		fields.Exclusive("run", "cmd"),
		fields.Exclusive("module", "image"),
		fields.Exclusive("module", "machine"),
		fields.Exclusive("module", "run"),
		fields.Exclusive("module", "entrypoint"),
		oneMachineImage(),
		fields.Custom(checkFiles),
		fields.Custom(checkInputs),
		fields.Custom(checkOutputs),
		fields.Custom(checkTargets),
		fields.Custom(checkPorts),
		fields.Custom(checkDisplays),
		fields.Custom(checkSteps),
		fields.Custom(checkSecrets),
		fields.Custom(checkGateway),
	}
}

// oneMachineImage is the rule that a machine boots from one image.
func oneMachineImage() fields.Rule {
	own := map[string]any{"anyOf": []any{
		map[string]any{"type": "string"},
		map[string]any{"type": "object", "required": []string{"image"}},
	}}
	return fields.Rule{
		Schema: map[string]any{"not": map[string]any{
			"required":   []string{"image", "machine"},
			"properties": map[string]any{"machine": own},
		}},
		Check: func(o *fields.Found) {
			machine := o.Value("machine")
			if machine == nil || !o.Has("image") {
				return
			}
			if machine.Kind == fields.String || machine.Lookup("image") != nil {
				o.Problem("machine", `has an image of its own beside the task's "image"; leave out one of them`)
			}
		},
	}
}

func checkVariable(s string) error {
	switch {
	case s == "":
		return errors.New("the name of a variable is empty")
	case strings.ContainsAny(s, "=\x00"):
		return fmt.Errorf("%q can't be a variable's name: it has %q in it", short(s), s[strings.IndexAny(s, "=\x00")])
	case strings.HasPrefix(s, "CAISSON_"):
		return fmt.Errorf("%q is Caisson's own; use a name that does not begin with CAISSON_", short(s))
	}
	return nil
}

func checkNetworkMode(s string) error {
	if s == caisson.NetworkAllow {
		return errors.New(`"allow" needs hosts; write {allow: ["example.com:443"]}`)
	}
	return nil
}

func checkProxyName(s string) error {
	if s == "localhost" {
		return errors.New(`"localhost" is the sandbox itself; choose another name`)
	}
	return nil
}

// ownHeaders are those by which a request finds its way and its end: a value in
// them would be read by somebody else than who it is for.
const ownHeaders = `(?i:host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-connection|proxy-authorization)`

var isOwnHeader = fields.Match(ownHeaders)

func checkBrokerHeader(s string) error {
	if isOwnHeader.Matches(s) {
		return fmt.Errorf("%q belongs to the connection; name the header that the host reads the value from", short(s))
	}
	return nil
}

// Bounds of an allow-list: each port is a socket in the sandbox.
const (
	maxAllowed = 1024
	maxPorts   = 128
)

// checkGateway looks at proxies, allow-lists and brokered secrets beside the
// rest of the task.
func checkGateway(o *fields.Found) {
	network := o.Value("network")
	allow := network.Lookup("allow")
	checkAllowed(o, allow)
	if allow != nil {
		if servers := o.Value("dns").Lookup("servers"); servers != nil {
			o.ProblemIn(servers, "dns.servers", "can't stand beside network.allow, where names are resolved by Caisson alone")
		}
	}
	taken := reachedNames(o)
	proxies := o.Value("proxies")
	if proxies != nil && proxies.Kind == fields.Map {
		for _, e := range proxies.Keys {
			if other := taken[e.Key]; other != "" {
				o.ProblemIn(e.Value, fields.Join("proxies", e.Key), "is the name of %s too; choose another", other)
			}
		}
	}
	if network == nil || network.Kind != fields.String || network.Text != caisson.NetworkHost {
		return
	}
	const why = "needs a network of the sandbox's own; choose another than network: host"
	if proxies != nil && len(proxies.Keys) > 0 {
		o.Problem("proxies", why)
	}
	secrets := o.Value("secrets")
	if secrets == nil || secrets.Kind != fields.Map {
		return
	}
	for _, e := range secrets.Keys {
		if broker := e.Value.Lookup("broker"); broker != nil {
			o.ProblemIn(broker, fields.Join("secrets", e.Key)+".broker", why)
		}
	}
}

func checkAllowed(o *fields.Found, allow *fields.Value) {
	if allow == nil || allow.Kind != fields.List {
		return
	}
	if len(allow.Items) > maxAllowed {
		o.ProblemIn(allow, "network.allow", "has %d entries; at most %d are possible", len(allow.Items), maxAllowed)
	}
	ports := map[string]bool{}
	for _, item := range allow.Items {
		_, port := splitEndpoint(item.Text)
		ports[strings.TrimLeft(port, "0")] = true
	}
	if len(ports) > maxPorts {
		o.ProblemIn(allow, "network.allow", "has %d different ports; at most %d are possible", len(ports), maxPorts)
	}
}

// reachedNames are the names by which programs inside reach each other, with
// whose they are.
func reachedNames(o *fields.Found) map[string]string {
	taken := map[string]string{}
	if h := o.Text("hostname"); h != "" {
		taken[strings.ToLower(h)] = "the sandbox itself"
	}
	if o.Has("sidecars") {
		taken["main"] = "the main program"
	}
	each(o, "sidecars", "name", func(_, name *fields.Value, _ string) {
		taken[strings.ToLower(name.Text)] = "a sidecar"
	})
	return taken
}

// ownStepNames are those that steps without a name have, and main's.
const ownStepNames = `main|(pre|post|finally|sidecar)-[0-9]+`

var isOwnStepName = fields.Match(ownStepNames)

func checkStepName(s string) error {
	if isOwnStepName.Matches(s) {
		return fmt.Errorf("%q is reserved for the main program and for steps without a name; choose another", short(s))
	}
	return nil
}

// checkDevice looks at "SOURCE[:TARGET[:PERMISSIONS]]".
func checkDevice(s string) error {
	parts := strings.Split(s, ":")
	for _, p := range parts[:min(2, len(parts))] {
		if err := checkAbsolute(p); err != nil {
			return err
		}
	}
	return nil
}

// splitDevice makes a mapping of "SOURCE[:TARGET[:PERMISSIONS]]".
func splitDevice(v any) any {
	out := map[string]any{}
	keys := []string{"source", "target", "permissions"}
	for i, part := range strings.SplitN(v.(string), ":", len(keys)) {
		out[keys[i]] = part
	}
	return out
}

func checkRef(s string) error {
	if strings.Contains(s, "..") || strings.Contains(s, "@{") || strings.HasSuffix(s, "/") || strings.HasSuffix(s, ".lock") {
		return fmt.Errorf("%q is not a branch, tag or commit", short(s))
	}
	return nil
}

// checkGitInput refuses git's options for what is not fetched with git.
func checkGitInput(o *fields.Found) {
	if from := strings.ToLower(o.Text("from")); o.Has("git") && from != "" && !strings.HasPrefix(from, "git+") {
		o.Problem("git", `needs a git URL beside it, such as from: "git+https://example.com/team/repo.git"`)
	}
	if to := o.Text("to"); o.Has("text") && (inWork(to) == "" || strings.HasSuffix(to, "/")) && to != "" {
		o.Problem("to", "%q is a folder; text needs the name of a file", short(to))
	}
}

// checkOutput sees to it that several files have room.
func checkOutput(o *fields.Found) {
	from, to := o.Text("path"), o.Text("to")
	if to != "" && !strings.HasSuffix(to, "/") && strings.ContainsAny(from, "*?[{") {
		o.Problem("to", `must end in "/", because %q may match several files`, short(from))
	}
}

// reservedTargets can't be mounted over, nor can anything below them.
var reservedTargets = []string{"/proc", "/sys", "/dev", "/run/secrets"}

func checkMount(o *fields.Found) {
	if target := o.Text("target"); target != "" {
		if err := checkTarget(path.Clean(target)); err != nil {
			o.Problem("target", "%v", err)
		}
	}
	source := o.Text("source")
	switch kind := o.Text("type"); kind {
	case "volume", "cache":
		if source != "" && !isMountName.Matches(source) {
			o.Problem("source", "%q is not the name of a %s; want up to 63 letters, digits, and . _ -", short(source), kind)
		}
	case "tmpfs":
		checkTmpfs(o)
	}
}

var isMountName = fields.Match(mountName)

func checkTarget(target string) error {
	if target == "/" || target == caisson.WorkDir {
		return fmt.Errorf("%q can't be mounted over; choose a folder of its own, such as /data", target)
	}
	for _, r := range reservedTargets {
		if (target == r || strings.HasPrefix(target, r+"/")) && target != "/dev/shm" {
			return fmt.Errorf("%q lies in %s, which every sandbox has of its own", short(target), r)
		}
	}
	return nil
}

var isTmpfsMode = fields.Match(tmpfsMode)

func checkTmpfs(o *fields.Found) {
	opts := o.Value("opts")
	if opts == nil || opts.Kind != fields.Map {
		return
	}
	for _, e := range opts.Keys {
		below := fields.Join("opts", e.Key)
		switch e.Key {
		case "size":
			if _, err := caisson.ParseBytes(e.Value.Text); err != nil && e.Value.Kind != fields.Broken {
				o.ProblemIn(e.Value, below, "%v", err)
			}
		case "mode":
			if e.Value.Kind != fields.String || !isTmpfsMode.Matches(e.Value.Text) {
				o.ProblemIn(e.Value, below, `%q is not valid; want permission bits as octal digits in quotes, such as "0700"`,
					short(e.Value.Text))
			}
		default:
			o.ProblemIn(e.Value, below, `unknown option of a tmpfs; known are "size" and "mode"`)
		}
	}
}

func onceNeedsFile() fields.Rule {
	return fields.Rule{
		Schema: map[string]any{
			"if":   map[string]any{"properties": map[string]any{"once": map[string]any{"const": true}}, "required": []string{"once"}},
			"then": map[string]any{"properties": map[string]any{"as": map[string]any{"const": "file"}}, "required": []string{"as"}},
		},
		Check: func(o *fields.Found) {
			if o.Valid["once"] == true && o.Text("as") != caisson.SecretFile {
				o.Problem("once", `needs as: "file"; a variable can be read again and again`)
			}
		},
	}
}

// inWork returns the clean path in the work folder that p means, or an
// absolute path that lies elsewhere.
func inWork(p string) string {
	if !path.IsAbs(p) {
		p = caisson.WorkDir + "/" + p
	}
	p = path.Clean(p)
	if p == caisson.WorkDir {
		return ""
	}
	return strings.TrimPrefix(p, caisson.WorkDir+"/")
}

// parents calls f for every folder that p lies in, as long as it returns true.
func parents(p string, f func(folder string) bool) {
	for i := strings.LastIndexByte(p, '/'); i > 0; i = strings.LastIndexByte(p[:i], '/') {
		if !f(p[:i]) {
			return
		}
	}
}

// checkFiles sees to it that no file is to be a folder too.
func checkFiles(o *fields.Found) {
	files := o.Value("files")
	if files == nil || files.Kind != fields.Map {
		return
	}
	by := map[string]string{}
	for _, e := range files.Keys {
		at := inWork(e.Key)
		if first, taken := by[at]; taken && first != e.Key {
			o.ProblemIn(e.Value, fields.Join("files", e.Key), "is the same file as %q", short(first))
		}
		if at == "" || strings.HasSuffix(e.Key, "/") {
			o.ProblemIn(e.Value, fields.Join("files", e.Key), "is a folder; give the name of a file")
		}
		by[at] = e.Key
	}
	for _, e := range files.Keys {
		parents(inWork(e.Key), func(folder string) bool {
			file, taken := by[folder]
			if taken {
				o.ProblemIn(e.Value, fields.Join("files", e.Key), "lies in %q, which is a file", short(file))
			}
			return !taken
		})
	}
}

// each calls f for the text under key of every mapping in the list under
// field, whatever else is wrong with it.
func each(o *fields.Found, field, key string, f func(item, text *fields.Value, below string)) {
	list := o.Value(field)
	if list == nil || list.Kind != fields.List {
		return
	}
	for i, item := range list.Items {
		if text := item.Lookup(key); text != nil && text.Kind == fields.String {
			f(item, text, fmt.Sprintf("%s[%d].%s", field, i, key))
		}
	}
}

// checkInputs sees to it that every input has a place of its own.
func checkInputs(o *fields.Found) {
	taken := map[string]string{} // by what, for each place
	isFile := map[string]bool{}  // places that are no folders
	if files := o.Value("files"); files != nil {
		for _, e := range files.Keys {
			at := inWork(e.Key)
			taken[at], isFile[at] = fields.Join("files", e.Key), true
		}
	}
	each(o, "inputs", "to", func(item, to *fields.Value, below string) {
		at := inWork(to.Text)
		if other, there := taken[at]; there {
			o.ProblemIn(to, below, "%q is where %s goes too", short(to.Text), other)
		}
		taken[at] = strings.TrimSuffix(below, ".to")
		isFile[at] = isFile[at] || item.Lookup("text") != nil
	})
	each(o, "inputs", "to", func(_, to *fields.Value, below string) {
		parents(inWork(to.Text), func(folder string) bool {
			if isFile[folder] {
				o.ProblemIn(to, below, "%q lies in %q, which %s makes a file", short(to.Text), short(folder), taken[folder])
			}
			return !isFile[folder]
		})
	})
}

// checkOutputs refuses two outputs that would overwrite each other.
func checkOutputs(o *fields.Found) {
	taken := map[string]string{}
	each(o, "outputs", "to", func(item, to *fields.Value, below string) {
		if strings.HasSuffix(to.Text, "/") {
			return
		}
		when := []string{string(caisson.WhenSuccess), string(caisson.WhenFailure)}
		if w := item.Lookup("when"); w == nil {
			when = when[:1]
		} else if w.Text != string(caisson.WhenAlways) {
			when = []string{w.Text}
		}
		for _, w := range when {
			if other, there := taken[w+" "+to.Text]; there {
				o.ProblemIn(to, below, "is where %s goes too", other)
				break
			}
			taken[w+" "+to.Text] = strings.TrimSuffix(below, ".to")
		}
	})
}

func checkTargets(o *fields.Found) {
	taken := map[string]string{}
	each(o, "mounts", "target", func(_, target *fields.Value, below string) {
		at := path.Clean(target.Text)
		if other, there := taken[at]; there {
			o.ProblemIn(target, below, "%q is the target of %s too", short(target.Text), other)
		}
		taken[at] = strings.TrimSuffix(below, ".target")
	})
}

func checkPorts(o *fields.Found) {
	ports := o.Value("ports")
	if ports == nil || ports.Kind != fields.List {
		return
	}
	text := func(item *fields.Value, key, otherwise string) string {
		if v := item.Lookup(key); v != nil {
			return v.Text
		}
		return otherwise
	}
	taken := map[string]int{}
	for i, item := range ports.Items {
		hostPort, protocol := text(item, "host_port", "0"), text(item, "protocol", "tcp")
		if hostPort == "0" {
			continue
		}
		key := text(item, "host_ip", "127.0.0.1") + " " + hostPort + " " + protocol
		if other, there := taken[key]; there {
			o.ProblemIn(item, "ports["+strconv.Itoa(i)+"].host_port", "%s is the host port of ports[%d] too", hostPort, other)
		}
		taken[key] = i
	}
}

func checkDisplays(o *fields.Found) {
	checkScreens(o)
	taken := map[string]bool{}
	each(o, "displays", "name", func(_, name *fields.Value, below string) {
		if taken[name.Text] {
			o.ProblemIn(name, below, "%q is the name of another display too", short(name.Text))
		}
		taken[name.Text] = true
	})
}

// checkScreens sees to it that at most one display is nobody's VNC server.
func checkScreens(o *fields.Found) {
	list := o.Value("displays")
	if list == nil || list.Kind != fields.List {
		return
	}
	first := -1
	for i, item := range list.Items {
		if item.Lookup("socket") != nil || item.Lookup("port") != nil {
			continue
		}
		if first >= 0 {
			below := "displays[" + strconv.Itoa(i) + "]"
			o.ProblemIn(item, below, "displays[%d] is the machine's screen already; give socket or port of a VNC server", first)
			return
		}
		first = i
	}
}

// stepLists are the fields that list steps.
var stepLists = []string{"pre", "post", "finally", "sidecars"}

func checkSteps(o *fields.Found) {
	taken := map[string]string{}
	for _, field := range stepLists {
		each(o, field, "name", func(_, name *fields.Value, below string) {
			if other, there := taken[name.Text]; there {
				o.ProblemIn(name, below, "%q is the name of %s too", short(name.Text), other)
			}
			taken[name.Text] = strings.TrimSuffix(below, ".name")
		})
	}
}

// checkSecrets compares secrets with where they are used.
func checkSecrets(o *fields.Found) {
	secrets := o.Value("secrets")
	if password := o.Value("registry").Lookup("password"); password != nil && password.Kind == fields.String {
		if secrets.Lookup(password.Text) == nil {
			o.ProblemIn(password, "registry.password", "there is no such secret; name one of \"secrets\"")
		}
	}
	if secrets == nil || secrets.Kind != fields.Map {
		return
	}
	for _, e := range secrets.Keys {
		if as := e.Value.Lookup("as"); as != nil && as.Text != caisson.SecretEnv {
			continue
		}
		below := fields.Join("secrets", e.Key)
		if where := inEnv(o, e.Key); where != "" {
			o.ProblemIn(e.Value, below, "is a variable of %q too; leave out one of them", where)
		}
		if strings.HasPrefix(e.Key, "CAISSON_") {
			o.ProblemIn(e.Value, below, "names that begin with CAISSON_ are Caisson's own")
		}
	}
}

// inEnv returns the path of an environment of the task or of a step that has
// the variable, or "".
func inEnv(o *fields.Found, variable string) string {
	if o.Value("env").Lookup(variable) != nil {
		return "env"
	}
	for _, field := range stepLists {
		list := o.Value(field)
		if list == nil {
			continue
		}
		for i, step := range list.Items {
			if step.Lookup("env").Lookup(variable) != nil {
				return fmt.Sprintf("%s[%d].env", field, i)
			}
		}
	}
	return ""
}
