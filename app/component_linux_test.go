package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/component/run"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/testimage"
)

// componentScript is a component that tells what it sees, tries what it must
// not, and hands its table on.
const componentScript = `
set -e
echo "user $(id -u)"
echo "state $(cat /data/in/state.json)"
echo "tables" $(ls /data/in/tables)
echo "rows $(wc -l < /data/in/tables/people.csv)"
(echo '"9","eve"' >> /data/in/tables/people.csv) 2>/dev/null || true
echo "variables" $(env | grep -c '^KBC_') "$KBC_DATADIR $KBC_COMPONENTID"
echo "secrets" $(env | grep -c -e PASSWORD -e TOKEN -e CAISSON_COMPONENT -e AWS_ || true)
echo "interfaces" $(ls /sys/class/net 2>/dev/null | grep -v -e lo -e tunl0 -e sit0 -e ip6tnl0 || true)
echo "fresh /tmp" $(ls -A /tmp)
echo x > /tmp/x
mkdir -p /data/out/tables/sliced
printf '"1"\n' > /data/out/tables/sliced/a
printf '"2"\n' > /data/out/tables/sliced/b
echo '{"columns": ["id"], "destination": "out.c-main.sliced"}' > /data/out/tables/sliced.manifest
chmod 700 /data/out/tables/sliced
printf '"id","name"\n"1","ann"\n' > /data/out/tables/out.c-main.people
umask 077
echo '{"n": 1}' > /data/out/state.json
`

// componentSeen is what every engine must show.
const componentSeen = `user 1000
state {}
tables people.csv people.csv.manifest
rows 3
variables 11 /data/ test.script
secrets 0
interfaces
fresh /tmp
`

// components is a host for component runs with an image of the script.
type componentHost struct {
	t       *testing.T
	dir     string // of the configuration, with registry and storage
	archive string
	image   string
}

func newComponentHost(t *testing.T, script string) *componentHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("images and networks of components need root; an ordinary user's runs are those of component/run")
	}
	h := &componentHost{t: t, dir: t.TempDir(), image: "caisson-test/component:1"}
	for dir := h.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.archive = filepath.Join(h.dir, "component.tar")
	img, err := testimage.Busybox(v1.Config{Entrypoint: []string{"sh", "-c", script}})
	if err == nil {
		err = testimage.WriteArchive(img, h.archive, h.image)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write("storage/in/c-main/people.csv", "\"id\",\"name\"\n\"1\",\"ann\"\n\"2\",\"bob\"\n")
	return h
}

func (h *componentHost) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// define writes a definition with what JSON adds to its data.
func (h *componentHost) define(id, source, data, features string) {
	h.write("registry/"+id+".json", fmt.Sprintf(`{"id": %q, "type": "other", "features": [%s], "data": {"network": "none", "definition": %s%s}}`,
		id, features, source, data))
}

// run runs the configuration in an engine.
func (h *componentHost) run(cfg *app.Config, engine string) (result *caisson.Result, doc *run.Document, log string) {
	h.t.Helper()
	a, err := app.New(cfg, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Close()
	ctx := h.t.Context()
	task := &caisson.Task{Engine: engine, Component: &caisson.ComponentRun{Config: "."}}
	id, err := a.Executor.Submit(ctx, task, &executor.Submission{BaseDir: h.dir, Trusted: true})
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Executor.Remove(context.WithoutCancel(ctx), id, true)
	if err := a.Executor.Attend(ctx, id, false); err != nil {
		h.t.Fatal(err)
	}
	if result, err = a.Executor.Wait(ctx, id); err != nil {
		h.t.Fatal(err)
	}
	doc = &run.Document{}
	if len(result.Component) > 0 {
		if err := json.Unmarshal(result.Component, doc); err != nil {
			h.t.Fatal(err)
		}
	}
	var out strings.Builder
	err = a.Executor.Logs(ctx, id, executor.LogOptions{Stream: 1}, func(r executor.LogRecord) error {
		out.Write(r.Data)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return result, doc, out.String()
}

func (h *componentHost) read(name string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil {
		h.t.Error(err)
	}
	return string(data)
}

// TestComponentsAlike holds that a component is the same thing in every engine,
// and sees nothing but its data.
func TestComponentsAlike(t *testing.T) {
	for _, engine := range []string{"native", "oci", "docker"} {
		t.Run(engine, func(t *testing.T) {
			h := newComponentHost(t, componentScript)
			cfg := load(t)
			source := fmt.Sprintf(`{"type": "dockerhub", "uri": %q}`, "docker-archive:"+h.archive)
			switch engine {
			case "native":
				source = fmt.Sprintf(`{"type": "command", "command": ["sh", "-c", %s]}`, quote(t, componentScript))
			case "docker":
				cfg.Engine.Docker.Host = daemon(t, h.archive)
				name, tag, _ := strings.Cut(h.image, ":")
				source = fmt.Sprintf(`{"type": "dockerhub", "uri": %q, "tag": %q}`, name, tag)
			}
			h.define("test.script", source, "", "")
			h.write("config.json", `{"component": "test.script", "id": "1", "configuration": {"storage": {"input": {
				"tables": [{"source": "in.c-main.people", "destination": "people.csv"}]}}}}`)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "not for components")
			result, doc, log := h.run(cfg, engine)
			if !result.Success {
				t.Fatalf("%+v, log %q", doc, log)
			}
			if log != componentSeen {
				t.Errorf("the component sees\n%s\nwant\n%s", log, componentSeen)
			}
			if got := h.read("storage/out/c-main/people.csv"); got != "\"id\",\"name\"\n\"1\",\"ann\"\n" {
				t.Errorf("people = %q", got)
			}
			if got := h.read("storage/out/c-main/sliced.csv"); strings.Count(got, "\n") != 3 {
				t.Errorf("sliced = %q, want two rows", got)
			}
			if got := h.read("storage/in/c-main/people.csv"); strings.Contains(got, "eve") {
				t.Error("the component has changed what is stored")
			}
			if engine == "oci" && (len(doc.Images) != 1 || len(doc.Images[0][0].Digests) != 1 || !strings.HasPrefix(doc.Images[0][0].Digests[0], "sha256:")) {
				t.Errorf("images = %+v, want the digest", doc.Images)
			}
		})
	}
}

func quote(t *testing.T, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestComponentRoot holds that only the operator's registry lets a component be
// root, and that what it makes as root can be read and removed.
func TestComponentRoot(t *testing.T) {
	const script = `id -u; umask 077; printf '"a"\n"1"\n' > /data/out/tables/out.c-main.t; mkdir -m 700 /data/out/files/deep; chown -R 0:0 /data/out; true`
	for _, operator := range []bool{false, true} {
		t.Run(fmt.Sprintf("Operator=%v", operator), func(t *testing.T) {
			h := newComponentHost(t, script)
			cfg := load(t)
			want := "1000\n"
			if operator {
				cfg.Component.Registry = []string{filepath.Join(h.dir, "registry")}
				want = "0\n"
			}
			h.define("test.script", fmt.Sprintf(`{"type": "dockerhub", "uri": %q}`, "docker-archive:"+h.archive), "", `"container-root-user"`)
			h.write("config.json", `{"component": "test.script", "id": "1", "configuration": {}}`)
			result, doc, log := h.run(cfg, "oci")
			if !result.Success || log != want {
				t.Errorf("user %q, want %q; %+v", log, want, doc)
			}
			if got := h.read("storage/out/c-main/t.csv"); !strings.Contains(got, `"1"`) {
				t.Errorf("table = %q", got)
			}
		})
	}
}

// TestComponentImages holds that an image that can't be had fails a run as the
// application's, before anything of it runs.
func TestComponentImages(t *testing.T) {
	h := newComponentHost(t, "echo ran")
	h.define("test.script", fmt.Sprintf(`{"type": "dockerhub", "uri": %q}`, "docker-archive:"+h.archive), "", "")
	h.define("test.none", `{"type": "dockerhub", "uri": "docker-archive:/nonexistent.tar"}`, "", "")
	h.write("config.json", `{"component": "test.script", "id": "1", "configuration": {"processors": {"after": [{"definition": {"component": "test.none"}}]},
		"storage": {"input": {"tables": [{"source": "in.c-main.people"}]}}}}`)
	result, doc, log := h.run(load(t), "oci")
	if result.Status != 2 || doc.Error == nil || doc.Error.Type != "application" || !strings.Contains(doc.Error.Message, "can't be had") || log != "" {
		t.Errorf("status %d, %+v, log %q, want that the image can't be had", result.Status, doc.Error, log)
	}
	if len(doc.Input.Tables) != 1 {
		t.Error("the input was not mapped before images were made ready")
	}
}

// TestComponentBuilder holds that an image is made of a definition's commands,
// and of what the configuration puts into them.
func TestComponentBuilder(t *testing.T) {
	h := newComponentHost(t, "echo not built")
	t.Setenv("DOCKER_HOST", daemon(t, h.archive))
	name, tag, _ := strings.Cut(h.image, ":")
	h.define("test.built", fmt.Sprintf(`{"type": "builder", "uri": %q, "tag": %q, "build_options": {
		"parent_type": "dockerhub", "repository": {"uri": "https://example.com/nothing.git", "type": "git"},
		"commands": ["echo made for {{who}} > /home/made"], "entry_point": "cat /home/made",
		"parameters": [{"name": "who", "type": "plain_string"}]}}`, name, tag), "", "")
	h.write("config.json", `{"component": "test.built", "id": "1", "configuration": {"parameters": {"who": "ann"}}}`)
	result, doc, log := h.run(load(t), "oci")
	if !result.Success || log != "made for ann\n" {
		t.Errorf("log %q, %+v, want what was built", log, doc.Error)
	}
	h.write("config.json", `{"component": "test.built", "id": "1", "configuration": {"parameters": {"who": "ann; rm -rf"}}}`)
	if err := h.refused(load(t)); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "who") {
		t.Errorf("Submit = %v, want that the parameter is no plain string", err)
	}
}

// refused returns why a run is not accepted.
func (h *componentHost) refused(cfg *app.Config) error {
	h.t.Helper()
	a, err := app.New(cfg, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Close()
	task := &caisson.Task{Component: &caisson.ComponentRun{Config: "."}}
	_, err = a.Executor.Submit(h.t.Context(), task, &executor.Submission{BaseDir: h.dir, Trusted: true})
	return err
}

// TestComponentNetwork holds that a component has the network that its
// definition asks for, and no other.
func TestComponentNetwork(t *testing.T) {
	for network, want := range map[string]string{"none": "0\n", "no-internet": "0\n", "bridge": "1\n"} {
		t.Run(network, func(t *testing.T) {
			h := newComponentHost(t, "ip route | grep -c '^default' || true")
			h.write("registry/test.script.json", fmt.Sprintf(`{"id": "test.script", "type": "other", "data": {"network": %q,
				"definition": {"type": "dockerhub", "uri": %q}}}`, network, "docker-archive:"+h.archive))
			h.write("config.json", `{"component": "test.script", "id": "1", "configuration": {}}`)
			result, doc, log := h.run(load(t), "oci")
			if !result.Success || log != want {
				t.Errorf("%q default routes, want %q; %+v", log, want, doc.Error)
			}
		})
	}
}
