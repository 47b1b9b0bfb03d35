package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/internal/crash"
)

// childVariable tells a process of Killed what it is to do.
const childVariable = "CAISSON_STORAGETEST_CHILD"

// Child does in a process of Killed what that process is for, and ends it. It
// does nothing in others: a test's TestMain calls it first. Open opens the
// storage that place stands for.
func Child(open func(place string) (storage.Storage, error)) {
	place, ok := os.LookupEnv(childVariable)
	if !ok {
		return
	}
	if err := child(place, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child does one of everything that writes, as the loads of step.
func child(place string, open func(place string) (storage.Storage, error)) error {
	what, place, _ := strings.Cut(place, " ")
	s, err := open(place)
	if err != nil {
		return err
	}
	for _, st := range steps() {
		if st.name == what {
			return errors.Join(st.do(s), s.Close())
		}
	}
	return fmt.Errorf("%q is nothing that is done", what)
}

// Killed does everything that writes in processes of their own, and kills each
// at every passing of every point, by SIGKILL. After it the storage must be as if
// nothing of it had been done or all, the same again must do it once, and after
// that nothing must be left behind that left finds. The test's TestMain calls
// Child. New makes a place with nothing in it.
func Killed(t *testing.T, points []crash.Name, open func(place string) (storage.Storage, error), place func(t *testing.T) string, left func(place string) ([]string, error)) {
	for _, st := range steps() {
		var kills atomic.Int64
		t.Cleanup(func() {
			if kills.Load() == 0 && !t.Skipped() {
				t.Errorf("%s met no point", st.name)
			}
		})
		for _, point := range points {
			t.Run(st.name+"/"+string(point), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					if !killed(t, st, fmt.Sprintf("%s:%d", point, n), open, place(t), left) {
						return
					}
					kills.Add(1)
				}
			})
		}
	}
}

// killed does one step and reports whether the point was met.
func killed(t *testing.T, st step, point string, open func(place string) (storage.Storage, error), place string, left func(place string) ([]string, error)) bool {
	t.Helper()
	runs := 0
	use := func(do func(e *env)) {
		t.Helper()
		s, err := open(place)
		if err != nil {
			t.Fatal(err)
		}
		runs++
		do(&env{T: t, Storage: s, ctx: t.Context(), loads: 100 * runs})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var before, after string
	use(func(e *env) {
		prepare(e)
		before = e.everything()
	})
	if !die(t, st.name+" "+place, point) {
		return false
	}
	use(func(e *env) {
		now := e.everything()
		if err := st.do(e.Storage); err != nil {
			t.Errorf("killed at %s: the same again = %v", point, err)
		}
		after = e.everything()
		if after == before || now != before && now != after {
			t.Errorf("killed at %s there is\n%s\nwant what was there before\n%s\nor all\n%s", point, now, before, after)
		}
		if err := st.do(e.Storage); err != nil || e.everything() != after {
			t.Errorf("killed at %s: done once more = %v, and there is\n%s\nwant\n%s", point, err, e.everything(), after)
		}
	})
	// A later load removes what is left; not what is being read, for which it takes
	// a file that a process has inherited which another test is about to start.
	var names []string
	for range sweeps {
		use(func(e *env) {
			last := e.more("in.c-main.people", "id|name", "9|Last")
			last.AddColumns = []string{"age"}
			e.do(last)
			e.do(e.more("in.c-new.things", "id", "9"))
		})
		var err error
		if names, err = left(place); err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			return true
		}
	}
	t.Errorf("killed at %s: %q is left", point, names)
	return true
}

// sweeps is how many loads have to do for removing everything.
const sweeps = 20

// die runs a child and reports whether it was killed.
func die(t *testing.T, what, point string) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+what, crash.Variable+"="+point)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	t.Fatalf("%s: %v\n%s", what, err, stderr.String())
	return false
}

// everything is what can be read.
func (e *env) everything() string {
	e.Helper()
	var b strings.Builder
	b.WriteString(e.all())
	files, err := e.Files(e.ctx, nil)
	if err != nil {
		e.Fatal(err)
	}
	for _, f := range files {
		fmt.Fprintf(&b, "file %s %q %q\n", f.Name, f.Tags, e.read(f.ID))
	}
	if data, _, err := e.Document(e.ctx, "state/one"); err == nil {
		fmt.Fprintf(&b, "document %s\n", data)
	}
	// A time differs from run to run; the order of loads does not.
	lines := strings.Split(b.String(), "\n")
	for i, l := range lines {
		if f := strings.Fields(l); len(f) > 0 && strings.HasPrefix(l, "in.") {
			f = slices.DeleteFunc(f, func(w string) bool { return strings.HasSuffix(w, "Z") && strings.HasPrefix(w, "20") })
			lines[i] = strings.Join(f, " ")
		}
	}
	return strings.Join(lines, "\n")
}
