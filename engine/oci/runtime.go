package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

// standardOrder is the order of runtimes where the operator has none: the
// fastest first, and what is always there last.
var standardOrder = []string{isolate.Crun, isolate.Runc, isolate.Runsc, Builtin}

// versionTime bounds the question for a runtime's version, which takes
// milliseconds. Runtimes have been seen to hang.
const versionTime = 5 * time.Second

// runtimeLog is the file of Spec.Dir that a runtime writes to where a task asks
// for it.
const runtimeLog = "runtime.log"

// A candidate is a runtime that the operator names.
type candidate struct {
	name    string           // as it is configured
	runtime *isolate.Runtime // nil: builtin, or not found
	version string
	flaws   []flaw // known in this version
	broken  error  // why it can't be used; nil as long as nobody knows
	tried   bool   // a sandbox of it has worked, or broken says why not
}

// names are the runtimes that are tried, most wanted first.
func (o *Options) names() []string {
	switch {
	case o.Use != "" && o.AllowRuntimes:
		return slices.Compact(append([]string{o.Use}, o.Prefer...))
	case o.Use != "":
		return []string{o.Use}
	case len(o.Prefer) > 0:
		return o.Prefer
	}
	return standardOrder
}

// candidates looks for the runtimes. Thorough also asks those that are there for
// their version; otherwise it does where it has to.
func (o *Options) candidates(ctx context.Context, root, thorough bool) []candidate {
	var list []candidate
	for _, name := range o.names() {
		c := candidate{name: name}
		if name != Builtin {
			c.find(ctx, o, root, thorough)
		}
		list = append(list, c)
	}
	return list
}

// find resolves the runtime through PATH and links: what is run is what was
// probed, and what the handle says.
func (c *candidate) find(ctx context.Context, o *Options, root, thorough bool) {
	if !root {
		c.broken = errors.New("only root can have an OCI runtime make sandboxes; builtin works without")
		return
	}
	path, err := exec.LookPath(c.name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		c.broken = fmt.Errorf("%s is not installed", c.name)
		return
	}
	kind := filepath.Base(path)
	known := kind == isolate.Crun || kind == isolate.Runc || kind == isolate.Runsc
	if thorough || o.EnforceFloors || !known || kind == isolate.Runsc {
		if kind, c.version, err = askVersion(ctx, path); err != nil {
			c.broken = fmt.Errorf("%s --version: %w", path, err)
			return
		}
	}
	c.runtime = &isolate.Runtime{Path: path, Kind: kind, Flags: flagsFor(kind, c.version)}
	if kind == "" {
		if c.runtime.Flags, err = askFlags(ctx, path); err != nil {
			c.broken = fmt.Errorf("%s --help: %w", path, err)
			return
		}
	}
	c.flaws = flawsOf(kind, c.version, time.Now())
	if len(c.flaws) > 0 && o.EnforceFloors {
		c.broken = fmt.Errorf("%s: the operator wants none with known escapes (engine.oci.enforce_floors)", c.flawed())
	}
}

// askVersion runs a runtime's version command.
func askVersion(ctx context.Context, path string) (kind, version string, err error) {
	text, err := ask(ctx, path, "--version")
	if err != nil {
		return "", "", err
	}
	kind, version = readVersion(text)
	return kind, version, nil
}

// askFlags returns what a runtime of no known kind is told besides: runc's flag
// for a user namespace, which some have taken over and others refuse.
func askFlags(ctx context.Context, path string) ([]string, error) {
	text, err := ask(ctx, path, "--help")
	if err != nil || !strings.Contains(text, "--rootless") {
		return nil, err
	}
	return []string{"--rootless=true"}, nil
}

// ask runs a command of a runtime that prints something about it.
func ask(ctx context.Context, path, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, command)
	cmd.Env, cmd.Dir = []string{"PATH=" + standardPath}, "/"
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout = &limited{buf: &out, left: 16 << 10}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v", versionTime)
		}
		return "", err
	}
	return out.String(), nil
}

// overlaySince is when runsc began to keep what is written to the root for itself
// unless it is told otherwise.
var overlaySince = time.Date(2023, time.April, 1, 0, 0, 0, 0, time.UTC)

// flagsFor are the flags that depend on a runtime's version.
func flagsFor(kind, version string) []string {
	if day, ok := released(version); kind == isolate.Runsc && ok && day.After(overlaySince) {
		return []string{"--overlay2=none"}
	}
	return nil
}

// limited takes so many bytes and drops the rest.
type limited struct {
	buf  *bytes.Buffer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.buf.Write(p[:n])
	return len(p), nil
}

// readVersion reads "NAME version VERSION", as runtimes print it first. A name
// that is not known has no kind: it is taken to have runc's command line, as far
// as runtimes have that in common.
func readVersion(text string) (kind, version string) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) >= 3 && fields[1] == "version" {
		version = fields[2]
	}
	if len(fields) > 0 && slices.Contains([]string{isolate.Crun, isolate.Runc, isolate.Runsc}, fields[0]) {
		kind = fields[0]
	}
	return kind, version
}

// String returns the runtime's name and version.
func (c *candidate) String() string {
	if c.version == "" {
		return c.name
	}
	return c.name + " " + c.version
}

// flawed says which escapes are known.
func (c *candidate) flawed() string {
	var names []string
	for _, f := range c.flaws {
		names = append(names, f.name)
	}
	return fmt.Sprintf("%s has %s", c, strings.Join(names, ", "))
}

// makes reports whether sandboxes can be made by it, as far as is known.
func (c *candidate) makes() bool { return c.broken == nil && (c.runtime != nil || c.name == Builtin) }

// chosen is the first runtime that works, or nil.
func (f *found) chosen() *candidate {
	for i := range f.runtimes {
		if f.runtimes[i].makes() {
			return &f.runtimes[i]
		}
	}
	return nil
}

// choose returns the runtime for a task.
//
// Errors: ErrDenied for one that the operator does not let it choose.
func (e *Engine) choose(f *found, name string) (*candidate, error) {
	first := f.chosen()
	if name == "" || first != nil && name == first.name {
		if first == nil {
			return nil, kept.Unsupported("runtime", f.broken)
		}
		return first, nil
	}
	if !e.opts.AllowRuntimes {
		return nil, kept.Denied("options.runtime", errors.New("the operator lets no task choose (engine.oci.allow_runtimes)"))
	}
	for i := range f.runtimes {
		c := &f.runtimes[i]
		switch {
		case c.name != name:
		case !c.makes():
			return nil, kept.Unsupported("options.runtime", c.broken)
		default:
			return c, nil
		}
	}
	return nil, kept.Denied("options.runtime", fmt.Errorf("%q is none of %s (engine.oci.prefer)", name, strings.Join(e.opts.names(), ", ")))
}

// forTask returns what isolate is told of a runtime; nil is builtin.
func (c *candidate) forTask(ch *choice, dir string) *isolate.Runtime {
	if c.runtime == nil {
		return nil
	}
	r := *c.runtime
	if ch.Debug {
		r.Flags, r.Log = append(slices.Clone(r.Flags), "--debug"), filepath.Join(dir, runtimeLog)
	}
	return &r
}

// guest reports whether programs run on a kernel of the runtime's own.
func guest(r *isolate.Runtime) bool { return r != nil && r.Kind == isolate.Runsc }

// checkGuest refuses what a kernel that is not the host's can't do.
func (c *choice) checkGuest(s *engine.Spec, r *isolate.Runtime) error {
	if !guest(r) {
		return nil
	}
	for _, secret := range s.Secrets {
		if secret.As == caisson.SecretFile && secret.Once {
			return kept.Unsupported("secrets."+secret.Name+".once", errors.New("not with runtime runsc, whose pipes do not lead out of it; use as: env"))
		}
	}
	for name, set := range map[string]bool{
		"options.masked_paths": len(c.MaskedPaths) > 0, "options.readonly_paths": len(c.ReadOnlyPaths) > 0,
		"options.sysctls": len(c.Sysctls) > 0, "gateway": s.Gateway != nil,
		"displays": len(s.Displays) > 0,
	} {
		if set {
			return kept.Unsupported(name, errors.New("not with runtime runsc, whose kernel is its own"))
		}
	}
	return nil
}

// doubt notes that a runtime which nobody had tried does not work, and reports
// whether another one can be tried in its place.
func (e *Engine) doubt(f *found, c *candidate, ch *choice, err error) bool {
	if c.tried || c.runtime == nil || ch.Runtime != "" || !blamed(err) {
		return false
	}
	next := *f
	next.runtimes = slices.Clone(f.runtimes)
	for i := range next.runtimes {
		if next.runtimes[i].name == c.name {
			next.runtimes[i].broken, next.runtimes[i].tried = err, true
		}
	}
	if next.chosen() == nil {
		return false
	}
	e.found.CompareAndSwap(f, &next)
	return true
}

// blamed reports whether an error is a runtime's fault.
func blamed(err error) bool {
	var x *caisson.Error
	for errors.As(err, &x) {
		if strings.HasPrefix(x.Item, isolate.RuntimeItem) {
			return true
		}
		err = x.Err
	}
	return false
}

// missing says why runtimes can't be used, and what is known of those that can.
func (f *found) missingRuntimes(add func(what, why, do string)) {
	for i := range f.runtimes {
		c := &f.runtimes[i]
		switch {
		case c.broken != nil && c.name == Builtin:
			add("runtime "+c.name, c.broken.Error(), remedy())
		case c.broken != nil && c.runtime == nil:
			add("runtime "+c.name, c.broken.Error(), "install it and run as root, or name another one in engine.oci.prefer")
		case c.broken != nil:
			add("runtime "+c.name, c.broken.Error(), "update it, or name another one in engine.oci.prefer")
		}
		if len(c.flaws) > 0 && c.broken == nil {
			add("runtime "+c.name+" without known escapes",
				c.flawed()+", as its version says; distributions repair old versions",
				"update to "+c.flaws[len(c.flaws)-1].fixed+", or set engine.oci.enforce_floors")
		}
	}
}

// remedy is what an operator can do where builtin does not work.
func remedy() string {
	if runtime.GOOS != "linux" {
		return "use Linux, or engine docker"
	}
	return "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces, " +
		"kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
}

// verifyGuest reads what a probe has printed on a kernel that is not the host's,
// and that tells less about itself.
func verifyGuest(said []byte) error {
	want := map[string]string{
		"CapInh:": "0000000000000000", "CapPrm:": "0000000000000000", "CapEff:": "0000000000000000",
		"CapBnd:": "0000000000000000", "Seccomp:": "2",
	}
	seen := 0
	for line := range strings.Lines(string(said)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "sees":
			return fmt.Errorf("the program sees %s", fields[1])
		case len(fields) == 2 && want[fields[0]] != "":
			seen++
			if fields[1] != want[fields[0]] {
				return fmt.Errorf("the program has %s %s, not %s", fields[0], fields[1], want[fields[0]])
			}
		}
	}
	if seen < len(want) {
		return errors.New("the program did not tell about its isolation")
	}
	return nil
}

// reduce takes back what a kernel of the runtime's own can't do.
func (c *candidate) reduce(out *engine.Features) {
	if c == nil || !guest(c.runtime) {
		return
	}
	out.Limits.PIDs, out.Devices, out.Ports, out.Gateway = false, false, false, false
	out.Displays, out.DisplayServers = false, false
	out.Networks = engine.NetworkFeatures{None: out.Networks.None, Host: out.Networks.Host}
}

// missing says why.
func (c *candidate) missing(add func(what, why, do string)) {
	if c == nil || !guest(c.runtime) {
		return
	}
	const do = "use runtime crun, runc or builtin"
	add(engine.WhatPIDs, "gVisor's own processes would be counted", do)
	for _, what := range []string{engine.WhatNetwork, engine.WhatNamedNets, engine.WhatSharedNets, engine.WhatPorts} {
		add(what, "gVisor takes part in no network of others", do)
	}
	for _, what := range []string{engine.WhatAllowList, engine.WhatGateway} {
		add(what, "gVisor's network is its own, and nobody outside can listen in it", do)
	}
	add(engine.WhatDevices, "gVisor gives none", do)
	add(engine.WhatDisplays, "gVisor's sockets are its own, and nobody outside can connect to them", do)
	add(engine.WhatEndOfInput, "gVisor's terminals do not know ^D", "type exit")
	add(engine.IsolatedUserID, "gVisor's kernel has ids of its own; files have them on the host, too", do)
}
