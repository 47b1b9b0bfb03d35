package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Load reads the configuration.
//
// Errors: Problems, of kind ErrInvalid, with everything that is wrong;
// ErrNotFound if a file that was asked for does not exist; ErrDenied if a file
// can't be read, or is one of the usual ones and another user's; ErrInternal if
// a section's schema is not understood.
func Load(opts *Options) (*Config, error) {
	l, err := newLoader(opts)
	if err != nil {
		return nil, err
	}
	l.flags()
	l.variables()
	if err := l.files(); err != nil {
		return nil, err
	}
	if len(l.problems) == 0 {
		l.complete()
	}
	if len(l.problems) > 0 {
		return nil, Problems(l.problems)
	}
	return l.build()
}

// A leaf is one setting on its way to its value.
type leaf struct {
	key    string
	field  *fields.Field
	plain  any    // the value, where a layer has it
	origin string // of the value; empty: no layer has it
	// place tells where a section of a table was written, such as
	// [proxy.NAME]; nil where the value is not from a file.
	place func(section string) string
}

// take sets the value unless a nearer layer has set it.
func (f *leaf) take(plain any, origin string) {
	if f.origin == "" {
		f.plain, f.origin = plain, origin
	}
}

// loader reads layer after layer, nearest first.
type loader struct {
	opts     *Options
	env      map[string]string
	euid     int
	dir      string // absolute
	system   string
	table    *fields.Type
	required map[string][]string // keys of each section that must be there
	leaves   []*leaf
	read     []string
	problems []fields.Problem
}

func newLoader(opts *Options) (*loader, error) {
	if opts == nil {
		opts = &Options{}
	}
	l := &loader{opts: opts, env: map[string]string{}, euid: os.Geteuid(), system: opts.System, table: table()}
	if l.system == "" {
		l.system = "/etc/caisson"
	}
	environ := opts.Environ
	if environ == nil {
		environ = os.Environ()
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		l.env[name] = value
	}
	var err error
	if l.dir, err = filepath.Abs(opts.Dir); err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: "current folder", Kind: caisson.ErrNotFound, Err: err}
	}
	if l.required, err = addSections(l.table, opts.Sections); err != nil {
		return nil, err
	}
	l.flatten(l.table, "")
	return l, nil
}

// flatten lists the settings below an object.
func (l *loader) flatten(t *fields.Type, path string) {
	for i := range t.Fields {
		f := &t.Fields[i]
		key := fields.Join(path, f.Name)
		if f.Type.Form == fields.Object {
			l.flatten(f.Type, key)
			continue
		}
		l.leaves = append(l.leaves, &leaf{key: key, field: f})
	}
}

func (l *loader) problem(file, path, message string) {
	l.problems = append(l.problems, fields.Problem{File: file, Path: path, Message: message})
}

// layer takes the settings of a file in dir.
func (l *loader) layer(file, dir string, v *fields.Value) {
	absolutePaths(v, l.table, dir)
	plain, problems := fields.Read(file, v, l.table)
	l.problems = append(l.problems, problems...)
	if len(problems) > 0 {
		return
	}
	for _, leaf := range l.leaves {
		if value, at := find(plain, v, leaf.key); at != nil {
			if leaf.origin == "" {
				leaf.place = func(section string) string {
					written := at
					if below := at.Lookup(section); below != nil {
						written = below
					}
					return fmt.Sprintf("%s:%d", file, written.Line)
				}
			}
			leaf.take(value, fmt.Sprintf("%s:%d", file, at.Line))
		}
	}
}

// find returns the setting of a dotted key and where it was written, or nil.
func find(plain any, v *fields.Value, key string) (any, *fields.Value) {
	for part := range strings.SplitSeq(key, ".") {
		m, _ := plain.(map[string]any)
		if v = v.Lookup(part); v == nil {
			return nil, nil
		}
		plain = m[part]
	}
	return plain, v
}

// complete reports what is missing or contradicts itself once all layers are
// there.
func (l *loader) complete() {
	byKey := map[string]*leaf{}
	for _, leaf := range l.leaves {
		byKey[leaf.key] = leaf
	}
	for _, section := range slices.Sorted(maps.Keys(l.required)) {
		if !l.configured(section) {
			continue
		}
		for _, name := range l.required[section] {
			if leaf := byKey[section+"."+name]; leaf != nil && leaf.origin == "" {
				l.problem("", leaf.key, "the setting is missing; the section "+section+" needs it")
			}
		}
	}
}

// configured reports whether any setting of a section was given.
func (l *loader) configured(section string) bool {
	return slices.ContainsFunc(l.leaves, func(f *leaf) bool {
		return f.origin != "" && strings.HasPrefix(f.key, section+".")
	})
}

// defaults returns the settings that nobody has given, as a tree of plain
// values.
func (l *loader) defaults() (map[string]any, error) {
	c := Config{
		Executor: Executor{LogLimit: caisson.GiB},
		Engine:   Engine{Native: Native{IDBase: 1879048192, IDCount: 65536, Isolation: "full"}, OCI: defaultOCI(), Docker: defaultDocker(), Qemu: defaultQemu(), Script: defaultScript()},
		Image:    defaultImage(), Component: defaultComponent(),
	}
	if err := l.defaultFolders(&c); err != nil {
		return nil, err
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, err
	}
	var plain map[string]any
	return plain, json.Unmarshal(data, &plain)
}

// defaultFolders sets where state and sockets are.
func (l *loader) defaultFolders(c *Config) error {
	given := func(key string) string {
		for _, leaf := range l.leaves {
			if leaf.key == key && leaf.origin != "" {
				return leaf.plain.(string)
			}
		}
		return ""
	}
	xdg, home := l.env["XDG_STATE_HOME"], l.env["HOME"]
	switch c.State = given("state"); {
	case c.State != "":
	case l.euid == 0:
		c.State = "/var/lib/caisson"
	case filepath.IsAbs(xdg):
		c.State = filepath.Join(xdg, "caisson")
	case filepath.IsAbs(home):
		c.State = filepath.Join(home, ".local", "state", "caisson")
	default:
		return &caisson.Error{
			Op: caisson.OpConfig, Item: "state", Kind: caisson.ErrInvalid,
			Err: fmt.Errorf("no folder for it is known; set HOME, CAISSON_STATE or --state"),
		}
	}
	xdg = l.env["XDG_RUNTIME_DIR"]
	switch c.Runtime = given("runtime"); {
	case c.Runtime != "":
	case l.euid == 0 && runtime.GOOS == "linux":
		c.Runtime = "/run/caisson"
	case filepath.IsAbs(xdg) && l.euid != 0:
		c.Runtime = filepath.Join(xdg, "caisson")
	default:
		c.Runtime = filepath.Join(c.State, "run")
	}
	return nil
}

// build makes the configuration of the settings and their defaults.
func (l *loader) build() (*Config, error) {
	defaults, err := l.defaults()
	if err != nil {
		return nil, err
	}
	c := &Config{Files: l.read, Sections: map[string]json.RawMessage{}}
	extra := map[string]any{}
	for _, leaf := range l.leaves {
		if leaf.origin != "" {
			tree := defaults
			if l.section(leaf.key) != "" {
				tree = extra
			}
			store(tree, strings.Split(leaf.key, "."), leaf.plain)
		}
		c.settings = append(c.settings, leaf.setting(defaults))
	}
	data, err := json.Marshal(defaults)
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Kind: caisson.ErrInternal, Err: err}
	}
	for name := range l.opts.Sections {
		if !l.configured(name) {
			continue
		}
		if c.Sections[name], err = json.Marshal(lookup(extra, name)); err != nil {
			return nil, &caisson.Error{Op: caisson.OpConfig, Kind: caisson.ErrInternal, Err: err}
		}
	}
	c.checkWhole(l.contradiction)
	if len(l.problems) > 0 {
		return nil, Problems(l.problems)
	}
	return c, nil
}

// contradiction reports what is wrong with settings beside each other. The key
// is a setting's, or of a section of a table.
func (l *loader) contradiction(key, message string) {
	for _, f := range l.leaves {
		place := f.origin
		if section, ok := strings.CutPrefix(key, f.key+"."); ok && f.place != nil {
			place = f.place(section)
		} else if key != f.key {
			continue
		}
		l.problem(place, key, message)
		return
	}
}

// section returns the name of the embedding program's section that key is in,
// or "".
func (l *loader) section(key string) string {
	for name := range l.opts.Sections {
		if strings.HasPrefix(key, name+".") {
			return name
		}
	}
	return ""
}

// store puts a value into a tree of mappings.
func store(tree map[string]any, path []string, value any) {
	for _, part := range path[:len(path)-1] {
		below, ok := tree[part].(map[string]any)
		if !ok {
			below = map[string]any{}
			tree[part] = below
		}
		tree = below
	}
	tree[path[len(path)-1]] = value
}

// lookup returns the value of a dotted key in a tree of mappings, or nil.
func lookup(tree map[string]any, key string) any {
	var at any = tree
	for part := range strings.SplitSeq(key, ".") {
		m, _ := at.(map[string]any)
		at = m[part]
	}
	return at
}
