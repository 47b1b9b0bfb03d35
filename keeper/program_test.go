//go:build linux

package keeper_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper"
)

// buildProgram builds the stand-in for the main binary. Where the small keeper
// was built before, it is part of it.
func buildProgram(t *testing.T, path string) (withKeeper bool) {
	t.Helper()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := filepath.Glob("embedded/caisson-keeper-linux-*")
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

func program(t *testing.T, path, binDir string) keeper.Command {
	t.Helper()
	out, err := exec.Command(path, binDir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Fields(string(out))
}

// works runs a script with a keeper that is started so.
func works(t *testing.T, c keeper.Command) {
	t.Helper()
	s := spec(t, "exit 3")
	client, err := keeper.Launch(t.Context(), c, s)
	if err != nil {
		t.Fatalf("Launch with %q: %v", c, err)
	}
	defer client.Close()
	if err := client.Start(t.Context()); err != nil {
		t.Error(err)
	}
	if exit, err := client.Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Errorf("Wait = %+v, %v, want code 3", exit, err)
	}
	if err := client.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	self := filepath.Join(dir, "caisson")
	if buildProgram(t, self) {
		testEmbedded(t, self, bin)
		return
	}
	t.Run("Itself", func(t *testing.T) {
		got := program(t, self, bin)
		if len(got) != 2 || got[0] != self || got[1] != keeper.Subcommand {
			t.Errorf("Program = %q, want the program itself", got)
		}
		works(t, got)
	})
	t.Run("OfGoRun", func(t *testing.T) {
		temporary := filepath.Join(dir, "go-build1", "exe", "caisson")
		if err := os.MkdirAll(filepath.Dir(temporary), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(self, temporary); err != nil {
			t.Fatal(err)
		}
		got := program(t, temporary, bin)
		if len(got) != 2 || filepath.Dir(got[0]) != bin {
			t.Errorf("Program = %q, want a copy in %s", got, bin)
		}
		if err := os.Remove(temporary); err != nil {
			t.Fatal(err)
		}
		works(t, got)
	})
	t.Run("Beside", func(t *testing.T) {
		beside := filepath.Join(dir, "caisson-keeper")
		if err := os.WriteFile(beside, []byte("#!/bin/sh\necho caisson-keeper other\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := program(t, self, bin); got[0] != self {
			t.Errorf("Program = %q although the version differs", got)
		}
		if err := os.Remove(beside); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(command[0], beside); err != nil {
			t.Fatal(err)
		}
		got := program(t, self, bin)
		if len(got) != 1 || got[0] != beside {
			t.Errorf("Program = %q, want %s", got, beside)
		}
		works(t, got)
	})
	t.Run("ErrOfATest", func(t *testing.T) {
		_, err := keeper.Program(bin)
		wantKind(t, "Program in a test", err, caisson.ErrUnavailable)
	})
}

func testEmbedded(t *testing.T, self, bin string) {
	first := program(t, self, bin)
	if len(first) != 1 || filepath.Dir(first[0]) != bin || !strings.HasPrefix(filepath.Base(first[0]), "caisson-keeper-") {
		t.Fatalf("Program = %q, want a keeper in %s", first, bin)
	}
	works(t, first)
	// One that was damaged is made good.
	if err := os.Truncate(first[0], 1000); err != nil {
		t.Fatal(err)
	}
	if again := program(t, self, bin); again[0] != first[0] {
		t.Errorf("Program = %q, then %q", first, again)
	}
	works(t, first)
	entries, err := os.ReadDir(bin)
	if err != nil || len(entries) != 1 {
		t.Errorf("%s holds %v, %v, want one file", bin, entries, err)
	}
}
