package stagetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
)

// A StorerHarness is what TestStorer needs of an implementation.
type StorerHarness struct {
	// New returns the storer.
	New func(t *testing.T) stage.Storer
	// To returns the URL, without a slash at its end, of a place of the test's
	// own that is empty.
	To func(t *testing.T) string
	// Read returns the contents of a file by its URL, and whether it is there.
	Read func(t *testing.T, url string) (string, bool)
	// Env returns the surroundings; nil: none in particular.
	Env func(t *testing.T) *stage.Env
}

// TestStorer checks a Storer.
func TestStorer(t *testing.T, h StorerHarness) {
	for _, c := range storeCases {
		t.Run(c.name, func(t *testing.T) {
			s := &storeTest{T: t, h: &h, storer: h.New(t), env: &stage.Env{}, to: h.To(t), dir: t.TempDir()}
			if h.Env != nil {
				s.env = h.Env(t)
			}
			work, err := safefs.Open(s.dir, nil)
			s.must(err)
			defer work.Close()
			s.work = work
			c.run(s)
			if t.Failed() {
				t.Logf("the rule: %s", c.rule)
			}
		})
	}
}

// A storeTest is one case under way.
type storeTest struct {
	*testing.T
	h      *StorerHarness
	storer stage.Storer
	env    *stage.Env
	to     string
	dir    string // the work folder
	work   *safefs.Root
}

func (s *storeTest) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *storeTest) write(name, data string) {
	s.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.MkdirAll(filepath.Dir(path), 0o755))
	s.must(os.WriteFile(path, []byte(data), 0o644))
}

// store collects what matches and stores it.
func (s *storeTest) store(path, to string) ([]caisson.OutputFile, error) {
	s.Helper()
	out := &caisson.Output{Path: path, To: to}
	s.must(s.storer.CheckOutput(out, s.env))
	files, err := stage.Collect(s.Context(), s.work, out)
	s.must(err)
	return s.storer.Store(s.Context(), out, files, s.env)
}

// holds checks the contents of a stored file.
func (s *storeTest) holds(url, want string) {
	s.Helper()
	got, ok := s.h.Read(s.T, url)
	if !ok || got != want {
		s.Errorf("%s = %d bytes %.40q, there: %v, want %d bytes %.40q", url, len(got), got, ok, len(want), want)
	}
}

func (s *storeTest) absent(url string) {
	s.Helper()
	if _, ok := s.h.Read(s.T, url); ok {
		s.Errorf("%s is there", url)
	}
}

// A storeCase is one rule of the contract.
type storeCase struct {
	name, rule string
	run        func(s *storeTest)
}

var storeCases = []storeCase{
	{"File", "one match becomes what to names", func(s *storeTest) {
		data := strings.Repeat("0123456789abcdef", 100_000)
		s.write("out/a", data)
		got, err := s.store("out/a", s.to+"/deep/b")
		s.must(err)
		s.holds(s.to+"/deep/b", data)
		if len(got) != 1 || got[0].Path != "out/a" || got[0].Size != int64(len(data)) || got[0].SHA256 != sum(data) || got[0].To == "" {
			s.Errorf("Store = %+v", got)
		}
	}},
	{"Folder", "with a slash at its end to is a folder that gets all matches by name", func(s *storeTest) {
		s.write("out/a", "A")
		s.write("out/sub/b", "B")
		s.write("out/\xff \n", "odd")
		got, err := s.store("out/**", s.to+"/")
		s.must(err)
		s.holds(s.to+"/a", "A")
		s.holds(s.to+"/sub/b", "B")
		if len(got) != 3 {
			s.Errorf("Store = %+v, want 3 files", got)
		}
	}},
	{"Tree", "a folder becomes what to names", func(s *storeTest) {
		s.write("out/a", "A")
		s.write("out/sub/b", "B")
		_, err := s.store("out", s.to+"/tree")
		s.must(err)
		s.holds(s.to+"/tree/a", "A")
		s.holds(s.to+"/tree/sub/b", "B")
	}},
	{"Empty", "an empty file is stored", func(s *storeTest) {
		s.write("e", "")
		_, err := s.store("e", s.to+"/e")
		s.must(err)
		s.holds(s.to+"/e", "")
	}},
	{"Again", "storing the same again is harmless", func(s *storeTest) {
		s.write("a", "A")
		for range 2 {
			_, err := s.store("a", s.to+"/a")
			s.must(err)
			s.holds(s.to+"/a", "A")
		}
	}},
	{"Replaces", "a newer file replaces an older one", func(s *storeTest) {
		s.write("a", strings.Repeat("old", 1000))
		_, err := s.store("a", s.to+"/a")
		s.must(err)
		s.write("a", "new")
		_, err = s.store("a", s.to+"/a")
		s.must(err)
		s.holds(s.to+"/a", "new")
	}},
	{"Nothing", "no files are no error", func(s *storeTest) {
		got, err := s.storer.Store(s.Context(), &caisson.Output{Path: "a", To: s.to + "/a"}, nil, s.env)
		if err != nil || len(got) != 0 {
			s.Errorf("Store = %v, %v", got, err)
		}
	}},
	{"Cancelled", "a call whose context has ended fails and stores nothing", func(s *storeTest) {
		s.write("a", "A")
		out := &caisson.Output{Path: "a", To: s.to + "/a"}
		files, err := stage.Collect(s.Context(), s.work, out)
		s.must(err)
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		if _, err := s.storer.Store(ctx, out, files, s.env); !errors.Is(err, context.Canceled) {
			s.Errorf("Store = %v, want Canceled", err)
		}
		s.absent(s.to + "/a")
	}},
	{"GoesOn", "what can be stored is, although something else fails", func(s *storeTest) {
		s.write("a", "A")
		s.write("b", "B")
		s.write("c", "C")
		out := &caisson.Output{Path: "*", To: s.to + "/"}
		files, err := stage.Collect(s.Context(), s.work, out)
		s.must(err)
		s.must(os.Remove(filepath.Join(s.dir, "b")))
		got, err := s.storer.Store(s.Context(), out, files, s.env)
		if err == nil || len(got) != 2 || !strings.Contains(err.Error(), "b") {
			s.Errorf("Store = %+v, %v, want two files and an error that names the third", got, err)
		}
		s.holds(s.to+"/a", "A")
		s.absent(s.to + "/b")
		s.holds(s.to+"/c", "C")
	}},
	{"ErrSeveral", "several matches need a folder", func(s *storeTest) {
		s.write("a", "A")
		s.write("b", "B")
		if _, err := s.store("*", s.to+"/x"); !errors.Is(err, caisson.ErrInvalid) {
			s.Errorf("Store = %v, want ErrInvalid", err)
		}
		s.absent(s.to + "/x")
	}},
	{"ErrPattern", "CheckOutput refuses a bad pattern", func(s *storeTest) {
		for _, path := range []string{"", "/etc/passwd", "../x", "[", "a//b"} {
			if err := s.storer.CheckOutput(&caisson.Output{Path: path, To: s.to + "/"}, s.env); !errors.Is(err, caisson.ErrInvalid) {
				s.Errorf("CheckOutput of %q = %v, want ErrInvalid", path, err)
			}
		}
	}},
	{"ErrSwapped", "a file that the task swaps for a link after it was listed is not followed", func(s *storeTest) {
		secret := filepath.Join(s.TempDir(), "secret")
		s.must(os.WriteFile(secret, []byte("SECRET"), 0o644))
		s.write("a", "A")
		out := &caisson.Output{Path: "a", To: s.to + "/a"}
		files, err := stage.Collect(s.Context(), s.work, out)
		s.must(err)
		s.must(os.Remove(filepath.Join(s.dir, "a")))
		s.must(os.Symlink(secret, filepath.Join(s.dir, "a")))
		if _, err := s.storer.Store(s.Context(), out, files, s.env); !errors.Is(err, caisson.ErrDenied) {
			s.Errorf("Store = %v, want ErrDenied", err)
		}
		s.absent(s.to + "/a")
	}},
}
