package tork

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runtime translates which of Tork's runtimes is used.
func (c *converter) runtime() {
	const key = "runtime.type"
	s, ok := c.take(key)
	if !ok {
		s = setting{value: "docker"} // what Tork takes where nothing is said
	}
	c.kind = text(s.value)
	switch c.kind {
	case "docker":
		c.prefer("docker")
	case "podman":
		c.prefer("docker")
		c.note(key, s, "Podman is spoken to by Docker's interface; set [engine.docker] host to its socket")
	case "shell":
		c.prefer("native")
		c.note(key, s, "tasks are isolated now and see /usr of the host alone; [engine.native] has paths for more, and "+
			"isolation = \"none\" for what Tork did")
	default:
		c.note(key, s, "no engine for %q is known", c.kind)
	}
}

func (c *converter) prefer(engine string) { c.set("executor", "prefer", []string{engine}) }

// shell translates the shell runtime.
func (c *converter) shell() {
	const section = "engine.native"
	if s, ok := c.take("runtime.shell.cmd"); ok {
		c.set(section, "shell", list(s.value))
	}
	for _, name := range []string{"uid", "gid"} {
		key := "runtime.shell." + name
		s, ok := c.take(key)
		id := strings.TrimSpace(text(s.value))
		if !ok || id == "" || id == "-" {
			continue
		}
		n, err := strconv.ParseUint(id, 10, 31)
		switch {
		case err != nil:
			c.note(key, s, "%q is not a number; set [%s] %s to the number that it stands for", id, section, name)
		case n == 0:
			c.note(key, s, "no task runs as root because the configuration says so; a task asks for it with user: root")
		default:
			c.set(section, name, int64(n))
		}
	}
}

// docker translates the docker runtime.
func (c *converter) docker() {
	const section = "engine.docker"
	c.toggle("runtime.docker.privileged", section, "allow_privileged")
	c.toggle("runtime.docker.image.verify", section, "verify")
	if s, ok := c.take("runtime.docker.config"); ok {
		c.set("image", "auth_file", text(s.value))
	}
	if s, ok := c.take("runtime.docker.image.ttl"); ok {
		if d, err := time.ParseDuration(text(s.value)); err != nil || d <= 0 {
			c.note("runtime.docker.image.ttl", s, "%q is no length of time such as 72h", text(s.value))
		} else {
			c.set(section, "image_ttl", d.String())
		}
	}
	if s, ok := c.take("runtime.docker.busybox.image"); ok {
		c.note("runtime.docker.busybox.image", s, "not needed: volumes belong to the task's user without a helper image")
	}
}

// sandbox translates Tork's sandbox mode. It was off where nobody said
// anything; here it is on.
func (c *converter) sandbox() {
	said := false
	for _, key := range []string{"runtime.docker.sandbox", "runtime.podman.sandbox"} {
		s, ok := c.take(key)
		if !ok {
			continue
		}
		said = true
		on, err := toggle(s.value)
		if err != nil {
			c.note(key, s, "%v", err)
			continue
		}
		c.set("engine.docker", "nonroot", on)
		c.set("engine.oci", "nonroot", on)
	}
	if !said && c.kind != "shell" {
		c.note("runtime.docker.sandbox", setting{}, "not set: Tork runs images as root then, Caisson as 1000:1000; "+
			"nonroot = false in [engine.docker] and [engine.oci] for the former")
	}
}

// podman translates what the podman runtime has of its own.
func (c *converter) podman() {
	const section = "engine.docker"
	c.toggle("runtime.podman.privileged", section, "allow_privileged")
	c.toggle("runtime.podman.host.network", section, "allow_host_network")
}

// toggle takes a setting over that is true or false.
func (c *converter) toggle(key, section, name string) {
	s, ok := c.take(key)
	if !ok {
		return
	}
	on, err := toggle(s.value)
	if err != nil {
		c.note(key, s, "%v", err)
		return
	}
	c.set(section, name, on)
}

// binds translates which paths tasks may bind.
func (c *converter) binds() {
	allowed, given := c.take("mounts.bind.allowed")
	on, err := toggle(allowed.value)
	if given && err != nil {
		c.note("mounts.bind.allowed", allowed, "%v", err)
	}
	folders, listed := []string{}, false
	for _, key := range []string{"mounts.bind.sources", "mounts.bind.allowlist"} {
		s, ok := c.take(key)
		if !ok {
			continue
		}
		for _, path := range list(s.value) {
			listed = true
			if folder, ok := c.folder(key, s, path); ok {
				folders = append(folders, folder)
			}
		}
	}
	if s, ok := c.take("mounts.bind.denylist"); ok && len(list(s.value)) > 0 {
		c.note("mounts.bind.denylist", s, "there is none; list in [mount.bind] allow what tasks may bind, and nothing else is")
	}
	if s, ok := c.take("mounts.temp.dir"); ok {
		c.note("mounts.temp.dir", s, "Tork reads it nowhere; temporary files lie in the state folder")
	}
	if !on {
		return // as where nothing is allowed
	}
	if !listed {
		c.note("mounts.bind.sources", setting{}, "none was listed, which Tork takes for every path of the host; list the folders in [mount.bind] allow")
		return
	}
	c.set("mount.bind", "allow", folders)
}

// folder returns the folder that an entry of a list of sources stands for.
// Tork's are exact paths, and binds of what lies below are allowed here too.
func (c *converter) folder(key string, s setting, path string) (string, bool) {
	clean := filepath.Clean(strings.TrimSuffix(path, "/*"))
	switch {
	case !filepath.IsAbs(clean):
		c.note(key, s, "%q is not absolute", path)
	case strings.ContainsAny(clean, "*?[~$"):
		c.note(key, s, "%q is a pattern; list the folders", path)
	case clean == "/":
		c.note(key, s, "%q is the whole host; list the folders that tasks need", path)
	default:
		return clean, true
	}
	return "", false
}

// mounters takes over the tables of custom mounters, which only a program that
// has those mounters can read.
func (c *converter) mounters() {
	for _, name := range slices.Sorted(maps.Keys(c.mounter)) {
		section := mounterTable + "." + name
		table := asTOML(map[string]any{mounterTable: map[string]any{name: c.mounter[name]}})
		if slices.Contains(c.opts.Sections, section) {
			c.tail = append(c.tail, table)
			continue
		}
		c.tail = append(c.tail, "# For a program that has this mounter, see examples/embed.\n# "+
			strings.ReplaceAll(strings.TrimSuffix(table, "\n"), "\n", "\n# ")+"\n")
		c.note(section, setting{}, "kept as a comment: a program that has this mounter reads it, see examples/embed")
	}
}

// rest names what nothing has taken: settings of the runtimes each, of other
// parts by the part.
func (c *converter) rest() {
	parts := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(c.given)) {
		part, _, _ := strings.Cut(key, ".")
		switch part {
		case "runtime", "mounts":
			c.note(key, c.given[key], "there is no such setting here")
		default:
			parts[part] = true
		}
	}
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		why := "not about how tasks are run, not taken over"
		if part == "worker" {
			why = "not taken over: limits and timeouts stand in task documents"
		}
		c.note(part, setting{}, "%s", why)
	}
}

// text returns a scalar as it would be in a variable.
func text(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// list returns a list of text, of a list or of a variable with commas.
func list(value any) []string {
	switch v := value.(type) {
	case []any:
		out := make([]string, len(v))
		for i, item := range v {
			out[i] = text(item)
		}
		return out
	case string:
		var out []string
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
		return out
	}
	return nil
}

// toggle reads true or false as Tork does.
func toggle(value any) (bool, error) {
	switch v := value.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	on, err := strconv.ParseBool(text(value))
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", text(value))
	}
	return on, nil
}
