//go:build unix

package folder_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func newFolder(t testing.TB, opts *folder.Options) *folder.Folder {
	t.Helper()
	f, err := folder.Make(context.Background(), filepath.Join(t.TempDir(), "w"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// step does what a component would: it writes files below data/. A name that
// ends with a slash is a folder.
func step(t testing.TB, f *folder.Folder, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(f.Data(), name)
		dir := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			dir = path
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == path {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tree lists what is below dir, folders with a slash, files with their text,
// links with their target.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			list = append(list, name+"/")
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			list = append(list, name+" -> "+target)
		case d.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			list = append(list, name+"="+string(text))
		default:
			list = append(list, name+" "+d.Type().String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func value(t testing.TB, text string) *component.Value {
	t.Helper()
	v := &component.Value{}
	if err := v.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return v
}

// wantErr checks an error's kind, whose fault it is, and a part of its text.
func wantErr(t testing.TB, err error, kind caisson.Kind, fault component.Fault, part string) {
	t.Helper()
	if !errors.Is(err, kind) || component.FaultOf(err) != fault || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v (fault %v), want kind %v, fault %v, with %q", err, component.FaultOf(err), kind, fault, part)
	}
}

var empty = []string{"in/", "in/files/", "in/tables/", "in/user/", "out/", "out/files/", "out/tables/"}

func TestMake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w")
	ctx := context.Background()
	f, err := folder.Make(ctx, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(empty, tree(t, f.Data())); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(f.Tmp()); err != nil || info.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("tmp is %v, %v", info, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("W is %v, %v: others of the host must not get in", info, err)
	}
	step(t, f, map[string]string{"in/tables/old": "x", "other": "x"})

	t.Run("Again", func(t *testing.T) {
		again, err := folder.Make(ctx, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if diff := cmp.Diff(empty, tree(t, again.Data())); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
	})
	t.Run("Open", func(t *testing.T) {
		again, err := folder.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
	t.Run("ErrOpenNothing", func(t *testing.T) {
		if _, err := folder.Open(path+"x", nil); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("got %v, want %v", err, caisson.ErrNotFound)
		}
	})
	t.Run("ErrOpenHalf", func(t *testing.T) {
		if _, err := folder.Open(t.TempDir(), nil); !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("got %v, want %v", err, caisson.ErrNotFound)
		}
	})
	if err := f.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if err := folder.Remove(ctx, path); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
}

// The reference's verified output, with the values in place of "abridged".
const (
	emptyConfig = `{
    "shared_code_row_ids": [],
    "parameters": {},
    "image_parameters": {},
    "action": "run",
    "storage": {},
    "authorization": {}
}`
	fullConfig = `{
    "storage": {
        "input": {
            "tables": [
                {
                    "source": "in.c-main.sample",
                    "destination": "source.csv",
                    "columns": [],
                    "column_types": [],
                    "where_values": [],
                    "where_operator": "eq",
                    "overwrite": false,
                    "keep_internal_timestamp_column": true
                }
            ],
            "files": [
                {
                    "tags": [
                        "x"
                    ],
                    "overwrite": true
                }
            ]
        },
        "output": {
            "tables": [
                {
                    "source": "a.csv",
                    "destination": "out.c-m.a",
                    "incremental": false,
                    "primary_key": [],
                    "columns": [],
                    "distribution_key": [],
                    "delete_where_values": [],
                    "delete_where_operator": "eq",
                    "delimiter": ",",
                    "enclosure": "\"",
                    "metadata": [],
                    "column_metadata": [],
                    "write_always": false,
                    "tags": [],
                    "schema": []
                }
            ],
            "files": [
                {
                    "source": "f",
                    "tags": [],
                    "is_public": false,
                    "is_permanent": false,
                    "is_encrypted": true,
                    "notify": false
                }
            ]
        }
    },
    "parameters": {
        "a": {},
        "url": "https:\/\/example.com\/\u00e9\ud83d\ude00",
        "n": [
            1.50,
            12345678901234567890,
            null
        ],
        "#token": "plain"
    },
    "authorization": {
        "oauth_api": {
            "credentials": {
                "#data": "{}"
            }
        }
    },
    "shared_code_row_ids": [],
    "image_parameters": {
        "#key": "of the image"
    },
    "action": "run"
}`
)

func TestWriteConfig(t *testing.T) {
	full := `{"storage":{"input":{"tables":[{"source":"in.c-main.sample","destination":"source.csv"}],"files":[{"tags":["x"]}]},
		"output":{"tables":[{"source":"a.csv","destination":"out.c-m.a"}],"files":[{"source":"f"}]}},
		"runtime":{"safe":true},"processors":{"after":[{"definition":{"component":"p"}}]},
		"parameters":{"a":{},"url":"https://example.com/é😀","n":[1.50,12345678901234567890,null],"#token":"plain"},
		"authorization":{"oauth_api":{"id":"123","version":3,"credentials":{"#data":"{}"}}}}`
	tests := map[string]struct {
		config, image string
		want          string
		opts          folder.Options
	}{
		"Empty":      {config: "{}", want: emptyConfig},
		"Full":       {config: full, image: `{"#key":"of the image"}`, want: fullConfig},
		"EmptyLists": {config: full, image: `{"#key":"of the image"}`, want: strings.Replace(fullConfig, `"a": {}`, `"a": []`, 1), opts: folder.Options{Encoding: component.Encoding{EmptyLists: true}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config, err := component.ParseConfig("config.json", value(t, test.config))
			if err != nil {
				t.Fatal(err)
			}
			o := &component.FileOptions{}
			if test.image != "" {
				o.ImageParameters = value(t, test.image)
			}
			f := newFolder(t, &test.opts)
			if err := f.WriteConfig(config.File(o), component.JSON); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(f.Data(), "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("config.json (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWriteConfigProcessor(t *testing.T) {
	p := &component.Processor{Component: "p", Parameters: value(t, `{"a":1}`)}
	f := newFolder(t, nil)
	if err := f.WriteConfig(p.File(&component.FileOptions{ImageParameters: value(t, `{"b":2}`)}), component.JSON); err != nil {
		t.Fatal(err)
	}
	want := `config.json={
    "shared_code_row_ids": [],
    "parameters": {
        "a": 1
    },
    "image_parameters": {
        "b": 2
    },
    "action": "run",
    "storage": {},
    "authorization": {}
}`
	if diff := cmp.Diff(slices.Concat([]string{want}, empty), tree(t, f.Data())); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	must(t, f.WriteConfig(value(t, "{}"), component.YAML))
	if diff := cmp.Diff(slices.Concat([]string{"config.yml={}\n"}, empty), tree(t, f.Data())); diff != "" {
		t.Errorf("after a step of another format (-want +got):\n%s", diff)
	}
	must(t, f.RemoveConfig())
	if diff := cmp.Diff(empty, tree(t, f.Data())); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

// TestWriteConfigHostile finds a link or a folder where config.json is to be.
func TestWriteConfigHostile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFolder(t, nil)
	name := filepath.Join(f.Data(), "config.json")
	if err := os.Symlink(outside, name); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if err := f.WriteConfig(value(t, "{}"), component.JSON); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			t.Errorf("config.json is %v, %v", info, err)
		}
		if got, _ := os.ReadFile(outside); string(got) != "host" {
			t.Errorf("the host's file has %q", got)
		}
	}
	check()
	os.Remove(name)
	step(t, f, map[string]string{"config.json/x": "y"})
	check()
}

func TestYAML(t *testing.T) {
	f := newFolder(t, &folder.Options{Format: component.YAML})
	config := value(t, `{"parameters":{"a":{},"yes":"no","l":[1,[2,{"x":"é\n"}],[]],"e":1e5,"f":-2.5E-7,"z":null,"t":true}}`)
	if err := f.WriteConfig(config, component.YAML); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteState(nil); err != nil {
		t.Fatal(err)
	}
	if err := f.PutManifest(folder.Tables, "t", map[string]any{"id": "in.c-a.t"}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`config.yml=parameters:
    a: {}
    "yes": "no"
    l:
        - 1
        -
            - 2
            -
                x: "é\n"
        - []
    e: 1.0e+5
    f: -2.5e-7
    z: null
    t: true
`, "in/", "in/files/", "in/state.yml={}\n", "in/tables/", "in/tables/t.manifest=id: \"in.c-a.t\"\n", "in/user/", "out/", "out/files/", "out/tables/",
	}
	if diff := cmp.Diff(want, tree(t, f.Data())); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	step(t, f, map[string]string{"out/state.yml": "a: [1, x]\n", "out/tables/t": "", "out/tables/t.manifest": "incremental: true\n"})
	state, err := f.ReadState()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(state.Encode(component.Encoding{})); got != "{\n    \"a\": [\n        1,\n        \"x\"\n    ]\n}" {
		t.Errorf("state is %s", got)
	}
	if m, err := f.TableManifest("t"); err != nil || !m.Incremental {
		t.Errorf("TableManifest = %+v, %v", m, err)
	}
}

func TestState(t *testing.T) {
	f := newFolder(t, nil)
	if err := f.WriteState(value(t, `{"#s":"x","n":1.0}`)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(f.Data(), "in/state.json"))
	if want := "{\n    \"#s\": \"x\",\n    \"n\": 1.0\n}"; err != nil || string(got) != want {
		t.Errorf("state is %s, %v, want %s", got, err, want)
	}
	if state, err := f.ReadState(); state != nil || err != nil {
		t.Errorf("ReadState of nothing = %v, %v", state, err)
	}
	step(t, f, map[string]string{"out/state.json": `{"a":{"b":[1.0,{}]}}`})
	state, err := f.ReadState()
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := state.MarshalJSON(); string(data) != `{"a":{"b":[1.0,{}]}}` {
		t.Errorf("state is %s", data)
	}
	if err := f.DropState(); err != nil {
		t.Fatal(err)
	}
	if state, err := f.ReadState(); state != nil || err != nil {
		t.Errorf("ReadState after DropState = %v, %v", state, err)
	}
}

// special makes something that is no regular file.
var special = map[string]func(t testing.TB, path, outside string){
	"Link": func(t testing.TB, path, outside string) { must(t, os.Symlink(outside, path)) },
	"LinkToNothing": func(t testing.TB, path, _ string) {
		must(t, os.Symlink("/nonexistent/x", path))
	},
	"FIFO":   func(t testing.TB, path, _ string) { must(t, unix.Mkfifo(path, 0o644)) },
	"Socket": func(t testing.TB, path, _ string) { must(t, unix.Mknod(path, unix.S_IFSOCK|0o644, 0)) },
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hostFile is what no component may get to read.
func hostFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host.json")
	must(t, os.WriteFile(path, []byte(`{"host":"secret"}`), 0o600))
	return path
}

func TestDocumentsHostile(t *testing.T) {
	read := map[string]struct {
		name string
		read func(f *folder.Folder) (any, error)
	}{
		"State":         {"out/state.json", func(f *folder.Folder) (any, error) { return f.ReadState() }},
		"Usage":         {"out/usage.json", func(f *folder.Folder) (any, error) { return f.ReadUsage() }},
		"Result":        {"out/result.json", func(f *folder.Folder) (any, error) { return f.ReadResult() }},
		"TableManifest": {"out/tables/t.manifest", func(f *folder.Folder) (any, error) { return f.TableManifest("t") }},
		"FileManifest":  {"out/files/t.manifest", func(f *folder.Folder) (any, error) { return f.FileManifest("t") }},
	}
	for kind, r := range read {
		fault := component.UserFault
		if kind == "State" || kind == "Usage" {
			fault = component.ApplicationFault
		}
		check := func(t *testing.T, f *folder.Folder, part string) {
			t.Helper()
			_, err := r.read(f)
			if err == nil {
				t.Fatal("no error")
			}
			wantErr(t, err, caisson.ErrInvalid, fault, part)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the host's file: %v", err)
			}
		}
		for name, make := range special {
			t.Run(kind+name, func(t *testing.T) {
				f := newFolder(t, nil)
				make(t, filepath.Join(f.Data(), r.name), hostFile(t))
				check(t, f, r.name)
			})
		}
		t.Run(kind+"Folder", func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, map[string]string{r.name + "/": ""})
			check(t, f, r.name)
		})
		t.Run(kind+"NoJSON", func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, map[string]string{r.name: "{a"})
			check(t, f, r.name)
		})
		t.Run(kind+"Deep", func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, map[string]string{r.name: strings.Repeat("[", 1<<19)})
			check(t, f, r.name)
		})
		t.Run(kind+"Large", func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, map[string]string{r.name: "{"})
			must(t, os.Truncate(filepath.Join(f.Data(), r.name), 1<<30))
			check(t, f, "larger than")
		})
		t.Run(kind+"LinkAbove", func(t *testing.T) {
			f := newFolder(t, nil)
			outside := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(outside, filepath.Dir(r.name)[3:]), 0o755))
			must(t, os.WriteFile(filepath.Join(outside, r.name[4:]), []byte(`{"host":"secret"}`), 0o644))
			must(t, os.RemoveAll(filepath.Join(f.Data(), "out")))
			must(t, os.Symlink(outside, filepath.Join(f.Data(), "out")))
			check(t, f, "symbolic link")
		})
	}
}

func TestUsage(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"OK":         {`[{"metric":"rows","value":5},{"metric":1,"value":"0"}]`, ""},
		"Empty":      {`[]`, ""},
		"ErrObject":  {`{"metric":"rows","value":5}`, "usage.json"},
		"ErrMissing": {`[{"metric":"rows"}]`, "value"},
		"ErrUnknown": {`[{"metric":"rows","value":5,"x":1}]`, "x"},
		"ErrNull":    {`[{"metric":"rows","value":null}]`, "value"},
		"ErrEmpty":   {`[{"metric":"","value":5}]`, "metric"},
		"ErrList":    {`[{"metric":"rows","value":[]}]`, "value"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t, nil)
			step(t, f, map[string]string{"out/usage.json": test.text})
			_, err := f.ReadUsage()
			if test.want == "" {
				must(t, err)
				return
			}
			wantErr(t, err, caisson.ErrInvalid, component.ApplicationFault, test.want)
		})
	}
	if usage, err := newFolder(t, nil).ReadUsage(); usage != nil || err != nil {
		t.Errorf("ReadUsage of nothing = %v, %v", usage, err)
	}
}

func TestResult(t *testing.T) {
	f := newFolder(t, nil)
	if doc, err := f.ReadResult(); doc != nil || err != nil {
		t.Errorf("ReadResult of nothing = %v, %v", doc, err)
	}
	step(t, f, map[string]string{"out/result.json": `{"variables":{"a":1,"b":null,"c":"x"}}`})
	doc, err := f.ReadResult()
	must(t, err)
	if len(doc.Variables) != 3 || string(doc.Variables["c"]) != `"x"` {
		t.Errorf("variables are %s", doc.Variables)
	}
	step(t, f, map[string]string{"out/result.json": `{"variables":{"a":[1]}}`})
	if _, err := f.ReadResult(); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("got %v, want %v", err, caisson.ErrInvalid)
	}
}

func TestManifestNothing(t *testing.T) {
	f := newFolder(t, nil)
	if _, err := f.TableManifest("x"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("got %v, want %v", err, caisson.ErrNotFound)
	}
	if _, err := f.FileManifest("../x"); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("got %v, want %v", err, caisson.ErrInvalid)
	}
}

func TestCheckSecrets(t *testing.T) {
	image := value(t, `{"#key":"s3cret","plain":"s3cret2","deep":[{"#other":"0ther"}],"#empty":""}`)
	if err := folder.CheckSecrets(value(t, `{"parameters":{"#a":"mine","b":"s3cret","#e":""}}`), image); err != nil {
		t.Errorf("nothing is used: %v", err)
	}
	err := folder.CheckSecrets(value(t, `{"parameters":{"#x":"s3cret","l":[{"#y":"0ther"}]}}`), image)
	wantErr(t, err, caisson.ErrInvalid, component.UserFault, `"parameters.#x", "parameters.l.0.#y"`)
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the error shows a secret: %v", err)
	}
	if err := folder.CheckSecrets(nil, nil); err != nil {
		t.Error(err)
	}
}
