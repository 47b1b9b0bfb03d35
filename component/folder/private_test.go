//go:build unix

package folder_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/google/go-cmp/cmp"
)

// TestPrivate has documents with secrets somewhere else than in W.
func TestPrivate(t *testing.T) {
	const secret = "hunter2hunter2"
	base := t.TempDir()
	w, private := filepath.Join(base, "w"), filepath.Join(base, "memory")
	f, err := folder.Make(t.Context(), w, &folder.Options{Private: private})
	must(t, err)
	defer f.Close()
	value, err := component.ParseValue("config.json", []byte(`{"parameters": {"#key": "`+secret+`"}}`))
	must(t, err)
	must(t, f.WriteConfig(component.NewObject(), component.JSON))
	if binds := f.Binds(); len(binds) > 0 {
		t.Errorf("without secrets: %v, want a file that a step may change", binds)
	}
	must(t, f.WriteConfig(value, component.JSON))
	must(t, f.WriteConfig(value, component.JSON)) // again, as after a crash
	must(t, f.WriteState(value))
	want := []folder.Bind{
		{Source: filepath.Join(private, "config.json"), Target: "config.json"},
		{Source: filepath.Join(private, "in-state.json"), Target: "in/state.json"},
	}
	if diff := cmp.Diff(want, f.Binds()); diff != "" {
		t.Errorf("Binds, want - got +:\n%s", diff)
	}
	for _, b := range want {
		if data, err := os.ReadFile(filepath.Join(w, "data", b.Target)); err != nil || len(data) > 0 {
			t.Errorf("in W %s is %q, %v, want an empty file", b.Target, data, err)
		}
		if data, err := os.ReadFile(b.Source); err != nil || !strings.Contains(string(data), secret) {
			t.Errorf("%s is %q, %v", b.Source, data, err)
		}
	}
	var archive bytes.Buffer
	must(t, f.Archive(t.Context(), &archive, nil))
	hidden := 0
	for _, entry := range unzip(t, archive.Bytes()) {
		if strings.Contains(entry, secret) {
			t.Errorf("in the archive: %q", entry)
		}
		hidden += strings.Count(entry, `"#key": "[hidden]"`)
	}
	if hidden != len(want) {
		t.Errorf("the archive has %d of %d documents", hidden, len(want))
	}
	must(t, f.RemoveConfig())
	if _, err := os.Stat(want[0].Source); !errors.Is(err, fs.ErrNotExist) || len(f.Binds()) != 1 {
		t.Errorf("after RemoveConfig: %v, binds %v", err, f.Binds())
	}
}
