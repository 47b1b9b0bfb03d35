package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// A host is a set of folders that stand for those of a real one.
type host struct {
	dir, home, system string
	opts              Options
}

func newHost(t *testing.T, environ ...string) *host {
	root := t.TempDir()
	h := &host{dir: root + "/here", home: root + "/home", system: root + "/etc"}
	h.opts = Options{Dir: h.dir, System: h.system, Environ: append([]string{"HOME=" + h.home}, environ...)}
	for _, dir := range []string{h.dir, h.home + "/.config/caisson", h.system} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *host) load(t *testing.T) *Config {
	t.Helper()
	c, err := Load(&h.opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Config) setting(key string) Setting {
	for _, s := range c.Show() {
		if s.Key == key {
			return s
		}
	}
	return Setting{}
}

func TestDefaults(t *testing.T) {
	h := newHost(t)
	got := h.load(t)
	want := &Config{
		Executor: Executor{LogLimit: caisson.GiB},
		Engine:   Engine{Native: Native{IDBase: 1879048192, IDCount: 65536, Isolation: "full"}, OCI: defaultOCI(), Docker: defaultDocker(), Qemu: defaultQemu(), Script: defaultScript()},
		Image:    defaultImage(), Component: defaultComponent(),
	}
	want.State, want.Runtime = "/var/lib/caisson", "/run/caisson"
	if os.Geteuid() != 0 {
		want.State = h.home + "/.local/state/caisson"
		want.Runtime = want.State + "/run"
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Load, want - got +:\n%s", diff)
	}
	if s := got.setting("engine.native.id_base"); s.Value != "1879048192" || s.Origin != "default" {
		t.Errorf("id_base is shown as %+v", s)
	}
	if list := got.FileList(); list != os.DevNull {
		t.Errorf("FileList() = %q, want %q", list, os.DevNull)
	}
}

func TestDefaultFolders(t *testing.T) {
	tests := []struct {
		name           string
		euid           int
		environ        []string
		state, runtime string
	}{
		{"Root", 0, []string{"HOME=/root", "XDG_STATE_HOME=/x", "XDG_RUNTIME_DIR=/y"}, "/var/lib/caisson", "/run/caisson"},
		{"Home", 7, []string{"HOME=/h"}, "/h/.local/state/caisson", "/h/.local/state/caisson/run"},
		{"XDG", 7, []string{"HOME=/h", "XDG_STATE_HOME=/x", "XDG_RUNTIME_DIR=/y"}, "/x/caisson", "/y/caisson"},
		{"XDGRelative", 7, []string{"HOME=/h", "XDG_STATE_HOME=x", "XDG_RUNTIME_DIR=y"}, "/h/.local/state/caisson", "/h/.local/state/caisson/run"},
		{"Given", 7, []string{"CAISSON_STATE=/s"}, "/s", "/s/run"},
		{"GivenBoth", 0, []string{"CAISSON_STATE=s", "CAISSON_RUNTIME=/r"}, "/cwd/s", "/r"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, err := newLoader(&Options{Environ: test.environ, Dir: "/cwd"})
			if err != nil {
				t.Fatal(err)
			}
			l.euid = test.euid
			l.variables()
			var c Config
			if err := l.defaultFolders(&c); err != nil {
				t.Fatal(err)
			}
			if c.State != test.state || c.Runtime != test.runtime {
				t.Errorf("state, runtime = %q, %q, want %q, %q", c.State, c.Runtime, test.state, test.runtime)
			}
		})
	}
	t.Run("ErrNoHome", func(t *testing.T) {
		l, err := newLoader(&Options{Environ: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		l.euid = 7
		if err := l.defaultFolders(&Config{}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("defaultFolders = %v, want ErrInvalid", err)
		}
	})
}

func TestLayers(t *testing.T) {
	h := newHost(t, "CAISSON_ENGINE_NATIVE_ALLOW_NONE=true", "CAISSON_ENGINE_NATIVE_SHELL=dash, -c", "CAISSON_STATE=var", "CAISSON_RUNTIME=")
	h.opts.Flags = map[string]string{"engine.native.uid": "7"}
	write(t, h.system+"/caisson.toml", `
runtime = "run"
[engine.native]
uid = 1
gid = 1
id_count = 100
paths = ["/a", "b"]
shell = ["x"]
`)
	write(t, h.home+"/.config/caisson/caisson.toml", "engine.native.gid = 2\nengine.native.uid = 2\n")
	write(t, h.dir+"/caisson.toml", "[engine.native]\ngid = 3\n[mount.bind]\nallow = ['..']\n[executor]\nlog_limit = 1024\n")

	c := h.load(t)
	n := c.Engine.Native
	want := Native{
		Shell: []string{"dash", "-c"}, UID: 7, GID: 3, IDBase: 1879048192, IDCount: 100, Isolation: "full",
		Paths: []string{"/a", h.system + "/b"}, AllowNone: true,
	}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("engine.native, want - got +:\n%s", diff)
	}
	if want := caisson.KiB; c.Executor.LogLimit != want {
		t.Errorf("executor.log_limit = %v, want %v", c.Executor.LogLimit, want)
	}
	if want := h.dir + "/var"; c.State != want {
		t.Errorf("state = %q, want %q", c.State, want)
	}
	if want := h.system + "/run"; c.Runtime != want {
		t.Errorf("runtime = %q, want %q", c.Runtime, want)
	}
	if want := []string{filepath.Dir(h.dir)}; !reflect.DeepEqual(c.Mount.Bind.Allow, want) {
		t.Errorf("mount.bind.allow = %q, want %q", c.Mount.Bind.Allow, want)
	}
	shown := map[string]Setting{}
	for _, s := range c.Show() {
		shown[s.Key] = s
	}
	for key, want := range map[string]Setting{
		"engine.native.uid":        {Value: `7`, Origin: "flag"},
		"engine.native.gid":        {Value: `3`, Origin: h.dir + "/caisson.toml:2"},
		"engine.native.id_count":   {Value: `100`, Origin: h.system + "/caisson.toml:6"},
		"engine.native.shell":      {Value: `["dash", "-c"]`, Origin: "CAISSON_ENGINE_NATIVE_SHELL"},
		"engine.native.allow_none": {Value: `true`, Origin: "CAISSON_ENGINE_NATIVE_ALLOW_NONE"},
		"engine.native.isolation":  {Value: `"full"`, Origin: "default"},
		"state":                    {Value: `"` + h.dir + `/var"`, Origin: "CAISSON_STATE"},
		"stage.file.allow":         {Value: ``, Origin: "default"},
	} {
		want.Key = key
		if shown[key] != want {
			t.Errorf("Show: %+v, want %+v", shown[key], want)
		}
	}

	// Another process that reads the same files elsewhere finds the same.
	again, err := Load(&Options{File: c.FileList(), Environ: h.opts.Environ, Flags: h.opts.Flags, Dir: h.dir})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("Load of FileList, want - got +:\n%s", diff)
	}
}

func TestNamedFile(t *testing.T) {
	h := newHost(t)
	write(t, h.dir+"/caisson.toml", "state = '/not/read'")
	write(t, h.dir+"/mine.toml", "state = 'mine'")
	t.Run("Option", func(t *testing.T) {
		opts := h.opts
		opts.File = "mine.toml"
		c, err := Load(&opts)
		if err != nil || c.State != h.dir+"/mine" {
			t.Errorf("Load = %+v, %v, want the state of mine.toml", c, err)
		}
	})
	t.Run("Variable", func(t *testing.T) {
		opts := h.opts
		opts.Environ = append(opts.Environ, "CAISSON_CONFIG="+h.dir+"/mine.toml")
		c, err := Load(&opts)
		if err != nil || c.State != h.dir+"/mine" {
			t.Errorf("Load = %+v, %v, want the state of mine.toml", c, err)
		}
	})
	t.Run("ErrAbsent", func(t *testing.T) {
		opts := h.opts
		opts.File = "absent.toml"
		_, err := Load(&opts)
		if !errors.Is(err, caisson.ErrNotFound) || !strings.Contains(err.Error(), "absent.toml") {
			t.Errorf("Load = %v, want ErrNotFound that names the file", err)
		}
	})
	t.Run("ErrFolder", func(t *testing.T) {
		opts := h.opts
		opts.File = h.dir
		if _, err := Load(&opts); err == nil {
			t.Error("Load of a folder = nil, want an error")
		}
	})
	t.Run("ErrLarge", func(t *testing.T) {
		write(t, h.dir+"/large.toml", strings.Repeat("#\n", maxSize))
		opts := h.opts
		opts.File = "large.toml"
		if _, err := Load(&opts); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Load = %v, want ErrInvalid", err)
		}
	})
}

// TestOthersFiles checks that nobody else decides what Caisson does.
func TestOthersFiles(t *testing.T) {
	t.Run("ErrWritable", func(t *testing.T) {
		h := newHost(t)
		path := h.dir + "/caisson.toml"
		write(t, path, "state = '/x'")
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(&h.opts); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Load = %v, want ErrDenied", err)
		}
	})
	t.Run("ErrOwner", func(t *testing.T) {
		path := t.TempDir() + "/caisson.toml"
		write(t, path, "")
		other := os.Geteuid() + 1
		_, err := readFile(path, false, other)
		if os.Geteuid() == 0 {
			if err != nil {
				t.Errorf("readFile of root's file = %v, want nil", err)
			}
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Fatal(err)
			}
			_, err = readFile(path, false, other)
		}
		if !errors.Is(configError(path, err), caisson.ErrDenied) {
			t.Errorf("readFile of somebody's file = %v, want ErrDenied", err)
		}
		if _, err := readFile(path, true, other); err != nil {
			t.Errorf("readFile of a named file = %v, want nil", err)
		}
	})
}

func TestProblems(t *testing.T) {
	h := newHost(t,
		"CAISSON_ENGINE_NATIVE_UDI=5", "CAISSON_ENGINE_NATIVE_GID=x", "CAISSON_ENGINE_NATIVE_ALLOW_NONE=yes",
		"CAISSON_ENGINE_NATIVE_PATHS=[a", "CAISSON_OUTPUT=/x", "CAISSON_TEST_CACHE=1", "CAISSONX=1", "CAISSON_QUITE_ELSE=1")
	h.opts.Flags = map[string]string{"stat": "x", "state": "~/x"}
	near := h.dir + "/caisson.toml"
	write(t, near, `
stat = 1
[executor]
prefer = "native"
[engine.lxc]
nonroot = true
[engine.native]
isolation = "ful"
id_base = 1
paths = ["~/x", 5]
`)
	far := h.system + "/caisson.toml"
	write(t, far, "a = [\n")
	_, err := Load(&h.opts)
	want := []string{
		`flag: stat: there is no such setting; did you mean "state"?`,
		`flag: state: ~ is not expanded; write the whole path`,
		`CAISSON_ENGINE_NATIVE_ALLOW_NONE: engine.native.allow_none: is the text "yes"; want true or false`,
		`CAISSON_ENGINE_NATIVE_GID: engine.native.gid: "x" is not valid; want an id, 0 to 2147483646`,
		`CAISSON_ENGINE_NATIVE_PATHS: engine.native.paths: is not a value of TOML, such as ["a", "b"] or {a = 1}`,
		`CAISSON_ENGINE_NATIVE_UDI: there is no such setting; did you mean CAISSON_ENGINE_NATIVE_UID?; unset the variable`,
		`CAISSON_QUITE_ELSE: there is no such setting; unset the variable`,
		near + `:2:1: stat: unknown key "stat"; did you mean "state"?`,
		near + `:4:10: executor.prefer: is the text "native"; want a list`,
		near + `:5:9: engine.lxc: unknown key "lxc"; known are "native", "oci", "docker", "qemu", "wasm" and "script"`,
		near + `:8:13: engine.native.isolation: "ful" is not known; did you mean "full"? known are "full" and "none"`,
		near + `:9:11: engine.native.id_base: 1 is out of range; want an id of the host, 65536 to 4294901760`,
		near + `:10:10: engine.native.paths[0]: ~ is not expanded; write the whole path`,
		near + `:10:17: engine.native.paths[1]: is a number, not text; write it in quotes: "5"`,
		far + `:1:6: not valid TOML: array is incomplete`,
	}
	if err == nil {
		t.Fatal("Load = nil, want problems")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("Load, want - got +:\n%s", diff)
	}
	if !errors.Is(err, caisson.ErrInvalid) || caisson.KindOf(err) != caisson.ErrInvalid {
		t.Errorf("Load = %v, want the kind ErrInvalid", err)
	}
}

func TestWhole(t *testing.T) {
	h := newHost(t, "CAISSON_ENGINE_NATIVE_ID_BASE=4294901760", "CAISSON_ENGINE_NATIVE_ID_COUNT=65536")
	_, err := Load(&h.opts)
	want := "CAISSON_ENGINE_NATIVE_ID_COUNT: engine.native.id_count: the last id would be 4294967295; ids end at 4294967294"
	if err == nil || err.Error() != want {
		t.Errorf("Load = %v, want %s", err, want)
	}
}

var docker = map[string]*Section{"engine.lxc": {Schema: []byte(`{
	"type": "object", "additionalProperties": false, "required": ["host"],
	"properties": {
		"host": {"type": "string", "pattern": "^unix:"},
		"nonroot": {"type": "boolean", "default": true, "description": "Nobody is root."},
		"api_key": {"type": "string", "writeOnly": true},
		"pools": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}},
		"pull": {"type": "object", "properties": {"max_size": {"type": ["string", "integer"]}}},
		"labels": {"type": "object", "additionalProperties": {"type": "string"}}
	}
}`)}}

func TestSections(t *testing.T) {
	h := newHost(t, "CAISSON_ENGINE_LXC_NONROOT=true", "CAISSON_ENGINE_LXC_POOLS=1,2", "CAISSON_ENGINE_LXC_PULL_MAX_SIZE=5")
	h.opts.Sections = docker
	t.Run("OK", func(t *testing.T) {
		write(t, h.dir+"/caisson.toml", "[engine.lxc]\nhost = 'unix:/x'\napi_key = 'hunter2'\nlabels = {a = 'b'}")
		c := h.load(t)
		want := `{"api_key":"hunter2","host":"unix:/x","labels":{"a":"b"},"nonroot":true,"pools":[1,2],"pull":{"max_size":"5"}}`
		if got := string(c.Sections["engine.lxc"]); got != want {
			t.Errorf("Sections = %s, want %s", got, want)
		}
		for _, s := range c.Show() {
			if strings.Contains(s.Value, "hunter2") {
				t.Errorf("Show has a secret: %+v", s)
			}
		}
		if s := c.setting("engine.lxc.labels"); s.Value != `{"a" = "b"}` {
			t.Errorf("labels are shown as %+v", s)
		}
	})
	t.Run("ErrInvalid", func(t *testing.T) {
		write(t, h.dir+"/caisson.toml", "[engine.lxc]\nhost = 'tcp:x'\napi_key = 5\nnonrot = false\npools = [10]")
		_, err := Load(&h.opts)
		want := []string{
			`/caisson.toml:2:8: engine.lxc.host: "tcp:x" is not valid; want text that matches ^unix:`,
			`/caisson.toml:3:11: engine.lxc.api_key: is a number; want text`,
			`/caisson.toml:4:1: engine.lxc.nonrot: unknown key "nonrot"; did you mean "nonroot"?`,
			`/caisson.toml:5:10: engine.lxc.pools[0]: 10 is out of range; want 1 to 9`,
		}
		if err == nil {
			t.Fatal("Load = nil, want problems")
		}
		got := strings.Split(strings.ReplaceAll(err.Error(), h.dir, ""), "\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Load, want - got +:\n%s", diff)
		}
	})
	t.Run("ErrMissing", func(t *testing.T) {
		write(t, h.dir+"/caisson.toml", "")
		_, err := Load(&h.opts)
		want := "engine.lxc.host: the setting is missing; the section engine.lxc needs it"
		if err == nil || err.Error() != want {
			t.Errorf("Load = %v, want %s", err, want)
		}
	})
	t.Run("Absent", func(t *testing.T) {
		opts := h.opts
		opts.Environ = []string{"HOME=/"}
		if c, err := Load(&opts); err != nil || len(c.Sections) != 0 {
			t.Errorf("Load = %+v, %v, want no section", c, err)
		}
	})
	for name, schema := range map[string]string{
		"engine.native": `{"type": "object", "properties": {"a": {"type": "string"}}}`,
		"state.x":       `{"type": "object", "properties": {"a": {"type": "string"}}}`,
		"engine.x":      `{"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}}`,
		"engine.y":      `{"type": "string"}`,
	} {
		t.Run("ErrSchema"+name, func(t *testing.T) {
			_, err := Load(&Options{Environ: []string{}, Sections: map[string]*Section{name: {Schema: []byte(schema)}}})
			if !errors.Is(err, caisson.ErrInternal) {
				t.Errorf("Load = %v, want ErrInternal", err)
			}
		})
	}
}

func TestVariablesAreDistinct(t *testing.T) {
	l, err := newLoader(&Options{Sections: docker})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, v := range otherVariables {
		seen[v] = "another use"
	}
	for _, leaf := range l.leaves {
		name := variable(leaf.key)
		if seen[name] != "" {
			t.Errorf("%s is the variable of %s and of %s", name, leaf.key, seen[name])
		}
		seen[name] = leaf.key
	}
}

// TestTableIsConfig checks that the table and Config have the same settings.
func TestTableIsConfig(t *testing.T) {
	var compare func(path string, table *fields.Type, goType reflect.Type)
	compare = func(path string, table *fields.Type, goType reflect.Type) {
		inGo := map[string]reflect.Type{}
		for f := range fieldsOf(goType) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
				inGo[name] = f.Type
			}
		}
		for _, f := range table.Fields {
			if inGo[f.Name] == nil {
				t.Errorf("%s%s: in the table, but not in %v", path, f.Name, goType)
			} else if f.Type.Form == fields.Object {
				compare(path+f.Name+".", f.Type, inGo[f.Name])
			}
			delete(inGo, f.Name)
		}
		for name := range inGo {
			t.Errorf("%s%s: in %v, but not in the table", path, name, goType)
		}
	}
	compare("", table(), reflect.TypeFor[Config]())
}

func fieldsOf(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && !yield(f) {
				return
			}
		}
	}
}

func TestTableIsComplete(t *testing.T) {
	fields.Walk(table(), func(path string, f *fields.Field) {
		if f.Doc == "" || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s: the description %q is not a sentence", path, f.Doc)
		}
	})
}

func TestSchema(t *testing.T) {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema(docker)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		doc   string
		valid bool
	}{
		{"", true},
		{"state = '/x'\n[engine.native]\nshell = ['sh', '-c']\nid_base = 100000\n[engine.lxc]\nhost = 'unix:x'", true},
		{"[engine.lxc]\nhost = 'tcp:x'", false},
		{"[engine.native]\nisolation = 'ful'", false},
		{"[engine.native]\nuid = -1", false},
		{"stat = '/x'", false},
		{"[mount.bind]\nallow = '/x'", false},
	}
	h := newHost(t)
	h.opts.Sections = docker
	for _, test := range tests {
		var doc map[string]any
		if err := toml.Unmarshal([]byte(test.doc), &doc); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(plainMap(doc)); (err == nil) != test.valid {
			t.Errorf("schema of %q = %v, want valid: %v", test.doc, err, test.valid)
		}
		write(t, h.dir+"/caisson.toml", test.doc)
		if _, err := Load(&h.opts); (err == nil) != test.valid {
			t.Errorf("Load of %q = %v, want valid: %v", test.doc, err, test.valid)
		}
	}
}

// plainMap makes an empty mapping of none.
func plainMap(m map[string]any) any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func TestPlaces(t *testing.T) {
	value, problems := parseTOML("t", []byte(`a.b = 1
"é" = {x = [1, 2]}
[[c]]
n = 1
[[c]]
n = 2
d = { e.f = "x" }
[c.g]
h = 2020-01-01
"odd key" = true
`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := map[string]spot{}
	var walk func(path string, v *fields.Value)
	walk = func(path string, v *fields.Value) {
		got[path] = spot{v.Line, v.Column}
		for i, item := range v.Items {
			walk(path+"["+string(rune('0'+i))+"]", item)
		}
		for _, e := range v.Keys {
			walk(fields.Join(path, e.Key), e.Value)
		}
	}
	walk("", value)
	want := map[string]spot{
		"": {}, "a": {1, 1}, "a.b": {1, 7},
		`["é"]`: {2, 7}, `["é"].x`: {2, 8}, `["é"].x[0]`: {2, 13}, `["é"].x[1]`: {2, 16},
		"c": {3, 3}, "c[0]": {}, "c[0].n": {4, 5}, "c[1]": {}, "c[1].n": {6, 5},
		"c[1].d": {7, 5}, "c[1].d.e": {7, 7}, "c[1].d.e.f": {7, 13},
		"c[1].g": {8, 4}, "c[1].g.h": {9, 5}, `c[1].g["odd key"]`: {10, 13},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(spot{})); diff != "" {
		t.Errorf("places, want - got +:\n%s", diff)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("state = '/x'\n[engine.native]\nshell = ['sh', '-c']\n[[a]]\nb.c = {d = [1, {e = 2}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		value, problems := parseTOML("fuzz", data)
		if len(problems) == 0 {
			fields.Read("fuzz", value, table())
		}
	})
}
