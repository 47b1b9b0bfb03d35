package tork_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/config/tork"
)

// load returns the settings of text that are not defaults.
func load(t *testing.T, text string, sections ...string) map[string]string {
	t.Helper()
	file := t.TempDir() + "/caisson.toml"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := &config.Options{File: file, Environ: []string{"CAISSON_STATE=/state"}, Sections: map[string]*config.Section{}}
	for _, name := range sections {
		opts.Sections[name] = &config.Section{Schema: []byte(`{"type": "object", "properties": {"root": {"type": "string"}}}`)}
	}
	cfg, err := config.Load(opts)
	if err != nil {
		t.Fatalf("Caisson does not take it: %v\n%s", err, text)
	}
	given := map[string]string{}
	for _, s := range cfg.Show() {
		if strings.HasPrefix(s.Origin, file) {
			given[s.Key] = s.Value
		}
	}
	return given
}

// noted returns the keys of notes.
func noted(notes []tork.Note) string {
	var keys []string
	for _, n := range notes {
		keys = append(keys, n.Key)
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), " ")
}

func TestConvert(t *testing.T) {
	data, err := os.ReadFile("testdata/worker.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tork.Convert(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/worker.want")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.TOML); diff != "" {
		t.Errorf("Convert (-want +got):\n%s", diff)
	}
	load(t, got.TOML)
	if keys, want := noted(got.Notes), "broker logging mounter.mymounter mounts.bind.sources mounts.temp.dir "+
		"runtime.docker.busybox.image runtime.shell.gid worker"; keys != want {
		t.Errorf("notes about %s\nwant        %s", keys, want)
	}
}

func TestConvertCases(t *testing.T) {
	for _, c := range []struct {
		name, in string
		environ  []string
		want     map[string]string
		notes    string
	}{
		{
			name:  "Empty",
			want:  map[string]string{"executor.prefer": `["docker"]`},
			notes: "runtime.docker.sandbox",
		},
		{
			name:  "Shell",
			in:    "[runtime]\ntype = \"shell\"\n[runtime.shell]\nuid = \"\"\ngid = \"-\"\n",
			want:  map[string]string{"executor.prefer": `["native"]`},
			notes: "runtime.type",
		},
		{
			name:  "ShellRoot",
			in:    "runtime.type = \"shell\"\nruntime.shell.uid = \"0\"\n",
			want:  map[string]string{"executor.prefer": `["native"]`},
			notes: "runtime.shell.uid runtime.type",
		},
		{
			name: "SandboxByVariable", environ: []string{"TORK_RUNTIME_DOCKER_SANDBOX=true", "TORK_CONFIG=x", "HOME=/"},
			want: map[string]string{"executor.prefer": `["docker"]`, "engine.docker.nonroot": "true", "engine.oci.nonroot": "true"},
		},
		{
			name: "VariableWins", in: "[runtime.docker]\nsandbox = true\n", environ: []string{"TORK_RUNTIME_DOCKER_SANDBOX=false"},
			want: map[string]string{"executor.prefer": `["docker"]`, "engine.docker.nonroot": "false", "engine.oci.nonroot": "false"},
		},
		{
			name: "ListByVariable", in: "[runtime.docker]\nsandbox = true\n",
			environ: []string{"TORK_MOUNTS_BIND_ALLOWED=true", "TORK_MOUNTS_BIND_SOURCES=/a, /b/*"},
			want: map[string]string{
				"executor.prefer": `["docker"]`, "engine.docker.nonroot": "true", "engine.oci.nonroot": "true",
				"mount.bind.allow": `["/a", "/b"]`,
			},
		},
		{
			name:  "EveryPath",
			in:    "[runtime.docker]\nsandbox = true\n[mounts.bind]\nallowed = true\n",
			want:  map[string]string{"executor.prefer": `["docker"]`, "engine.docker.nonroot": "true", "engine.oci.nonroot": "true"},
			notes: "mounts.bind.sources",
		},
		{
			name:  "BindsOff",
			in:    "[runtime.docker]\nsandbox = true\n[mounts.bind]\nallowed = false\nsources = [\"/a\"]\n",
			want:  map[string]string{"executor.prefer": `["docker"]`, "engine.docker.nonroot": "true", "engine.oci.nonroot": "true"},
			notes: "",
		},
		{
			name:  "Nonsense",
			in:    "[runtime]\ntype = \"firecracker\"\nspeed = 9\n[runtime.docker]\nsandbox = \"maybe\"\nimage.ttl = \"soon\"\n[mounts.bind]\nallowed = \"yes please\"\n",
			want:  map[string]string{},
			notes: "mounts.bind.allowed runtime.docker.image.ttl runtime.docker.sandbox runtime.speed runtime.type",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tork.Convert([]byte(c.in), &tork.Options{Environ: c.environ})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, load(t, got.TOML)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			if keys := noted(got.Notes); keys != c.notes {
				t.Errorf("notes about %q, want %q: %v", keys, c.notes, got.Notes)
			}
		})
	}
}

// TestMounterSection holds that a program which has the mounter gets its
// section as it was.
func TestMounterSection(t *testing.T) {
	const name = "mounter.mymounter"
	got, err := tork.Convert([]byte("[mounter.mymounter]\nroot = \"/srv\"\n"), &tork.Options{Sections: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	if value := load(t, got.TOML, name)[name+".root"]; value != `"/srv"` {
		t.Errorf("root = %s, want /srv:\n%s", value, got.TOML)
	}
}

func TestErrInvalid(t *testing.T) {
	_, err := tork.Convert([]byte("[runtime\n"), nil)
	if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("Convert = %v, want invalid, with the line", err)
	}
}

// FuzzConvert holds that what comes out is always TOML and says nothing that
// was not meant to be said.
func FuzzConvert(f *testing.F) {
	f.Add("[mounter.x]\n\"a\\nb\" = \"c\\n[engine.docker]\\nnonroot=false\"\n")
	f.Add("[mounts.bind]\nallowed=true\nsources=[\"/a\\\"]\\n\"]\n")
	f.Add("[\"mounter\".\"x]\\n[y\"]\na = 1\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := tork.Convert([]byte(in), nil)
		if err != nil {
			return
		}
		for line := range strings.Lines(got.TOML) {
			if !strings.HasPrefix(line, "#") && strings.Contains(line, "mounter") {
				t.Errorf("a section that is to be a comment is none:\n%s", got.TOML)
			}
		}
	})
}
