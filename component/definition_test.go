package component_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

func definition(t testing.TB, text string) *component.Definition {
	t.Helper()
	d, err := component.ParseDefinition("definition", []byte(text))
	if err != nil {
		t.Fatalf("ParseDefinition(%s): %v", text, err)
	}
	return d
}

func TestDefinitionDefaults(t *testing.T) {
	d := definition(t, `{"id":"keboola.ex-foo","data":{"definition":{"type":"quayio","uri":"keboola/foo"},"vendor":{"a":[]},"unknown":{"b":1}},"other":2}`)
	want := &component.Definition{
		ID: "keboola.ex-foo", Name: "keboola.ex-foo", DataTypes: "none", ProcessorPosition: "any", Features: []string{},
		Image:  &component.ImageSource{URI: "quay.io/keboola/foo", Tag: "latest"},
		Memory: 256e6, Format: "json", Timeout: time.Hour, Network: "bridge", ImageParameters: component.NewObject(),
		SyncActions: []string{}, StagingInput: "local", StagingOutput: "local", DefaultBucketStage: "in",
		Logging: component.Logging{Type: "standard", GELFServer: "tcp", Verbosity: map[int]string{
			100: "none", 200: "normal", 250: "normal", 300: "normal", 400: "normal", 500: "camouflage", 550: "camouflage", 600: "camouflage",
		}},
	}
	if diff := cmp.Diff(want, d, cmp.Comparer(func(a, b *component.Value) bool { return a.IsEmpty() && b.IsEmpty() })); diff != "" {
		t.Errorf("ParseDefinition, want - got +:\n%s", diff)
	}
}

func TestDefinitionAll(t *testing.T) {
	d := definition(t, `
id: example.cmd
type: application
name: Example
features: [container-root-user, no-swap]
dataTypesConfiguration: {dataTypesSupport: hints}
processorConfiguration: {allowedProcessorPosition: before}
data:
  definition: {type: command, command: [python3, main.py, "1"], env: {A: 1}, workdir: /x}
  memory: 2G
  configuration_format: yaml
  process_timeout: 7
  forward_token: true
  default_bucket: true
  default_bucket_stage: out
  image_parameters: {"#key": x, a: {}}
  network: no-internet
  synchronous_actions: [test]
  inject_environment: true
  logging: {type: gelf, gelf_server_type: udp, no_application_errors: true, verbosity: {"200": verbose}}
  staging_storage: {input: none, output: none}
`)
	if !d.Has(component.FeatureRootUser) || d.Has("x") || d.Memory != 2e9 || d.Timeout != 7*time.Second || d.Network != "no-internet" || d.Format != "yaml" {
		t.Errorf("definition %+v", d)
	}
	if diff := cmp.Diff([]string{"python3", "main.py", "1"}, d.Command); diff != "" || d.Env["A"] != "1" || d.Workdir != "/x" || d.Image != nil {
		t.Errorf("command %+v %s", d, diff)
	}
	if diff := cmp.Diff(component.Logging{Type: "gelf", GELFServer: "udp", NoApplicationErrors: true, Verbosity: map[int]string{200: "verbose"}}, d.Logging); diff != "" {
		t.Errorf("logging %s", diff)
	}
	if !d.ForwardToken || !d.DefaultBucket || d.DefaultBucketStage != "out" || !d.InjectEnvironment || d.StagingInput != "none" || d.DataTypes != "hints" || d.ProcessorPosition != "before" {
		t.Errorf("definition %+v", d)
	}
}

var badDefinitions = []bad{
	{"NoID", `{"data":{"definition":{"type":"dockerhub","uri":"a"}}}`, "", `"id" is missing`, true},
	{"NoData", `{"id":"a"}`, "", `"data" is missing`, true},
	{"NoDefinition", `{"id":"a","data":{}}`, "data", `"definition" is missing`, true},
	{"NoType", `{"id":"a","data":{"definition":{"uri":"a"}}}`, "data.definition", `"type" is missing`, true},
	{"NoURI", `{"id":"a","data":{"definition":{"type":"dockerhub"}}}`, "data.definition", `"uri" is missing`, false},
	{"Type", `{"id":"a","data":{"definition":{"type":"ftp","uri":"a"}}}`, "data.definition.type", `"ftp"`, true},
	{"Memory", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"memory":"1t"}}`, "data.memory", "256m", true},
	{"MemoryNumber", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"memory":5}}`, "data.memory", "256m", true},
	{"Network", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"network":"host"}}`, "data.network", `"host"`, true},
	{"Format", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"configuration_format":"xml"}}`, "data.configuration_format", `"xml"`, true},
	{"Timeout", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"process_timeout":-1}}`, "data.process_timeout", "range", true},
	{"Stage", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"default_bucket_stage":"sys"}}`, "data.default_bucket_stage", `"sys"`, true},
	{"Logging", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"logging":{"type":"syslog"}}}`, "data.logging.type", `"syslog"`, true},
	{"Gelf", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"logging":{"gelf_server_type":"amqp"}}}`, "data.logging.gelf_server_type", `"amqp"`, true},
	{"Verbosity", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"logging":{"verbosity":{"100":"loud"}}}}`, "data.logging.verbosity.100", `"loud"`, true},
	{"Level", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"logging":{"verbosity":{"7":"none"}}}}`, "data.logging.verbosity.7", "level", false},
	{"Staging", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"staging_storage":{"input":"ftp"}}}`, "data.staging_storage.input", `"ftp"`, true},
	{"Digest", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a","digest":"abc"}}}`, "data.definition.digest", "digest", true},
	{"ForwardToken", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"forward_token":"yes"}}`, "data.forward_token", "true or false", true},
	{"CommandNone", `{"id":"a","data":{"definition":{"type":"command"}}}`, "data.definition", `"command" is missing`, false},
	{"CommandEmpty", `{"id":"a","data":{"definition":{"type":"command","command":[]}}}`, "data.definition.command", "empty", true},
	{"BuilderNoOptions", `{"id":"a","data":{"definition":{"type":"builder","uri":"a"}}}`, "data.definition", `"build_options" is missing`, false},
	{"BuilderNoEntry", `{"id":"a","data":{"definition":{"type":"builder","uri":"a","build_options":{"parent_type":"dockerhub","repository":{"uri":"u"}}}}}`, "data.definition.build_options", `"entry_point" is missing`, true},
	{"BuilderParameter", `{"id":"a","data":{"definition":{"type":"builder","uri":"a","build_options":{"parent_type":"dockerhub","repository":{"uri":"u"},"entry_point":"e","parameters":[{"name":"n","type":"date"}]}}}}`, "data.definition.build_options.parameters[0].type", `"date"`, true},
	{"BuilderEnumeration", `{"id":"a","data":{"definition":{"type":"builder","uri":"a","build_options":{"parent_type":"dockerhub","repository":{"uri":"u"},"entry_point":"e","parameters":[{"name":"n","type":"enumeration"}]}}}}`, "data.definition.build_options.parameters[0]", `"values" is missing`, false},
	{"ImageParameters", `{"id":"a","data":{"definition":{"type":"dockerhub","uri":"a"},"image_parameters":5}}`, "data.image_parameters", "mapping", true},
}

func TestDefinitionErr(t *testing.T) {
	for _, test := range badDefinitions {
		t.Run(test.name, func(t *testing.T) {
			_, err := component.ParseDefinition("d.json", []byte(test.text))
			wantProblem(t, err, test.path, test.word)
			if component.FaultOf(err) != component.ApplicationFault {
				t.Errorf("FaultOf(%v) is the user's, want the application's", err)
			}
		})
	}
	t.Run("Syntax", func(t *testing.T) {
		_, err := component.ParseDefinition("d.json", []byte(`{"id":`))
		if !errors.Is(err, caisson.ErrInvalid) || component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("ParseDefinition = %v", err)
		}
	})
}

func write(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRegistry(t *testing.T) {
	const image = `data: {definition: {type: dockerhub, uri: x}}`
	one := write(t, t.TempDir(), map[string]string{
		"a.yaml": "id: a\nname: first\n" + image, "sub/component.yml": "id: b\n" + image, "b.txt": "no", ".c.json": "{",
		"sub2/other.json": "{}",
	})
	two := write(t, t.TempDir(), map[string]string{"x.json": `{"id":"a","name":"second","data":{"definition":{"type":"dockerhub","uri":"x"}}}`})
	r := component.NewRegistry(one, two, filepath.Join(one, "missing"))
	ctx := context.Background()
	all, err := r.List(ctx)
	if err != nil || len(all) != 2 || all[0].ID != "a" || all[0].Name != "first" || all[1].ID != "b" || all[1].Dir != filepath.Join(one, "sub") {
		t.Errorf("List() = %v, %v", all, err)
	}
	d, err := r.Definition(ctx, "b")
	if err != nil || d.ID != "b" {
		t.Errorf("Definition(b) = %v, %v", d, err)
	}
	_, err = r.Definition(ctx, "nope")
	if !errors.Is(err, caisson.ErrNotFound) || component.FaultOf(err) != component.UserFault || !strings.Contains(err.Error(), `component "nope": no definition has this id in `+one) {
		t.Errorf("Definition(nope) = %v, want the user's ErrNotFound", err)
	}
	t.Run("ErrTwice", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"a.yaml": "id: a\n" + image, "b.yaml": "id: a\n" + image})
		if _, err := component.NewRegistry(dir).List(ctx); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("List() = %v, want that a is defined twice", err)
		}
	})
	t.Run("OneBad", func(t *testing.T) {
		dir := write(t, t.TempDir(), map[string]string{"a.yaml": "id: a\n" + image, "b.yaml": "id: b\n"})
		r := component.NewRegistry(dir)
		if d, err := r.Definition(ctx, "a"); err != nil || d.ID != "a" {
			t.Errorf("Definition(a) beside a bad one = %v, %v", d, err)
		}
		_, err := r.Definition(ctx, "b")
		if err == nil || !strings.Contains(err.Error(), `"data" is missing`) || component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("Definition(b) = %v, want what is wrong with its file", err)
		}
	})
}

func TestBuild(t *testing.T) {
	const options = `{"id":"a.b","data":{"definition":{"type":"builder","uri":"quay.io/keboola/base","tag":"1.0","build_options":{
		"parent_type":"quayio","repository":{"uri":"https://git.example.com/r.git"%s},"entry_point":"php /home/run.php --data=/data",
		"commands":["git clone --depth 1 {{repository}} . # {{ dir }}","run {{n}} {{e}} {{s}}{{#t}}"],"version":"1.2.3","parameters":[
		{"name":"dir","type":"argument"},{"name":"n","type":"int","default_value":5},{"name":"e","type":"enumeration","values":["x","y"],"required":false},
		{"name":"s","type":"plain_string","required":false},{"name":"#t","type":"string","required":false}]}}}}`
	d := definition(t, strings.Replace(options, "%s", "", 1))
	b, err := d.Build(parse(t, `{"parameters":{"dir":"it's\nhere","e":"y","#t":"tok"},"runtime":{"network":"none"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "FROM quay.io/keboola/base:1.0\nLABEL com.keboola.docker.runner.origin=builder\nWORKDIR /home\nENV APP_VERSION=1.2.3\n" +
		`RUN ["/bin/sh","-c","git clone --depth 1 'https://git.example.com/r.git' . # 'it'\\''s\nhere'"]` + "\n" +
		`RUN ["/bin/sh","-c","run 5 y tok"]` + "\nWORKDIR /data\n" +
		`ENTRYPOINT ["/bin/sh","-c","php /home/run.php --data=/data"]` + "\n"
	if diff := cmp.Diff(want, string(b.Files["Dockerfile"])); diff != "" {
		t.Errorf("Dockerfile, want - got +:\n%s", diff)
	}
	if b.Anew || b.Network != "none" || !strings.HasPrefix(b.Name, "component.localhost/a-b:") || len(b.Files) != 1 {
		t.Errorf("build %+v", b)
	}
	t.Run("MasterAndCredentials", func(t *testing.T) {
		b, err := d.Build(parse(t, `{"parameters":{"dir":"d"},"runtime":{"version":"master","username":"u","#password":"p@ss"}}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(b.Files["git-credentials"]) != "https://u:p%40ss@git.example.com\n" || !b.Anew {
			t.Errorf("build %s %v", b.Files["git-credentials"], b.Anew)
		}
		if file := string(b.Files["Dockerfile"]); strings.Contains(file, "p@ss") || strings.Contains(file, "p%40ss") || !strings.Contains(file, "RUN --mount=type=bind,source=git-credentials") {
			t.Errorf("Dockerfile %s", file)
		}
	})
	for name, test := range map[string]struct{ config, path, word string }{
		"Missing":     {`{}`, "parameters.dir", "is missing"},
		"Integer":     {`{"parameters":{"dir":"d","n":"five"}}`, "parameters.n", "whole number"},
		"Plain":       {`{"parameters":{"dir":"d","s":"a b"}}`, "parameters.s", "other characters"},
		"Enumeration": {`{"parameters":{"dir":"d","e":"z"}}`, "parameters.e", "not known"},
		"List":        {`{"parameters":{"dir":["d"]}}`, "parameters.dir", "single value"},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			_, err := d.Build(parse(t, test.config), nil)
			wantProblem(t, err, test.path, test.word)
		})
	}
	t.Run("ErrVersion", func(t *testing.T) {
		_, err := d.Build(parse(t, `{"parameters":{"dir":"d"},"runtime":{"version":"1\nRUN x"}}`), nil)
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Build = %v, want ErrInvalid", err)
		}
	})
	t.Run("ErrOrphans", func(t *testing.T) {
		d := definition(t, `{"id":"a","data":{"definition":{"type":"builder","uri":"a","build_options":{"parent_type":"dockerhub","repository":{"uri":"u"},"entry_point":"run {{x}}"}}}}`)
		_, err := d.Build(parse(t, `{}`), nil)
		if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "{{x}}") {
			t.Errorf("Build = %v, want {{x}} named", err)
		}
	})
	t.Run("UserMessage", func(t *testing.T) {
		err := component.BuildFailure("a", "noise\nKBC::USER_ERR:no such branchKBC::USER_ERR\nnoise", errors.New("exit 1"))
		if component.FaultOf(err) != component.UserFault || !strings.Contains(err.Error(), "no such branch") {
			t.Errorf("BuildFailure = %v", err)
		}
		if err := component.BuildFailure("a", "noise", errors.New("exit 1")); component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("BuildFailure = %v, want the application's", err)
		}
	})
}
