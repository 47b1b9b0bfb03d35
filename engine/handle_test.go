package engine_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func TestHandleRoundTrip(t *testing.T) {
	dir := t.TempDir()
	want := &engine.Handle{Engine: "native", ID: "a-1", BootID: "b", Data: json.RawMessage(`{"x":1}`)}
	if err := engine.WriteHandle(dir, want); err != nil {
		t.Fatal(err)
	}
	if want.Version != 0 {
		t.Errorf("WriteHandle changed its argument")
	}
	got, err := engine.ReadHandle(dir, "native")
	if err != nil {
		t.Fatal(err)
	}
	want.Version = engine.HandleVersion
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadHandle: -want +got\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, engine.HandleFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the handle is %v, %v, want mode 0600", info, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the folder has %d entries, want the handle alone", len(entries))
	}
}

func TestReadHandleErr(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want caisson.Kind
	}{
		"Empty":      {"", caisson.ErrInvalid},
		"Garbage":    {"\x00{", caisson.ErrInvalid},
		"Null":       {"null", caisson.ErrInvalid},
		"Other":      {`{"version":1,"engine":"docker","id":"a"}`, caisson.ErrInvalid},
		"Newer":      {`{"version":2,"engine":"native","id":"a"}`, caisson.ErrInvalid},
		"NoVersion":  {`{"engine":"native","id":"a"}`, caisson.ErrInvalid},
		"HostileID":  {`{"version":1,"engine":"native","id":"../../etc"}`, caisson.ErrInvalid},
		"Huge":       {strings.Repeat(" ", 2<<20), caisson.ErrInvalid},
		"WrongTypes": {`{"version":"1","engine":[],"id":{}}`, caisson.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, engine.HandleFile), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if h, err := engine.ReadHandle(dir, "native"); !errors.Is(err, test.want) {
				t.Errorf("ReadHandle = %+v, %v, want %v", h, err, test.want)
			}
		})
	}
	if _, err := engine.ReadHandle(t.TempDir(), "native"); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("ReadHandle of an empty folder = %v, want ErrNotFound", err)
	}
}

func TestWriteHandleErr(t *testing.T) {
	err := engine.WriteHandle(filepath.Join(t.TempDir(), "absent"), &engine.Handle{Engine: "native", ID: "a"})
	if !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("WriteHandle to no folder = %v, want ErrNotFound", err)
	}
}

func TestBootID(t *testing.T) {
	a, err := engine.BootID()
	if err != nil || a == "" {
		t.Fatalf("BootID = %q, %v", a, err)
	}
	if b, _ := engine.BootID(); a != b {
		t.Errorf("BootID = %q, then %q", a, b)
	}
}

// A handle is read after a crash, and by newer and older programs.
func FuzzReadHandle(f *testing.F) {
	f.Add([]byte(`{"version":1,"engine":"native","id":"a","data":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, engine.HandleFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := engine.ReadHandle(dir, "native")
		if err == nil && (h.Engine != "native" || strings.Trim(h.ID, "abcdefghijklmnopqrstuvwxyz0123456789-") != "") {
			t.Errorf("ReadHandle = %+v", h)
		}
	})
}
