// Package stagetest checks implementations of package stage's contracts. The
// whole test of a stager's semantics is one call of each function that it
// needs; what only it does it tests itself.
package stagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/stage"
)

// A FetcherHarness is what TestFetcher needs of an implementation.
type FetcherHarness struct {
	// New returns the fetcher.
	New func(t *testing.T) stage.Fetcher
	// Input returns an input, but for To, that is a file with these contents.
	Input func(t *testing.T, data string) caisson.Input
	// Absent returns an input that is not there; nil where that can't be.
	Absent func(t *testing.T) caisson.Input
	// Env returns the surroundings; nil: none in particular.
	Env func(t *testing.T) *stage.Env
	// Tree says that an input is a folder, with the contents in the file
	// "data"; what is about single files is then refused.
	Tree bool
	// Instant says that Fetch has nothing to wait for, and so no use for its
	// context.
	Instant bool
}

// A fetchCase is one rule of the contract.
type fetchCase struct {
	name, rule string
	skip       func(h *FetcherHarness) bool
	run        func(t *fetchTest)
}

// TestFetcher checks a Fetcher.
func TestFetcher(t *testing.T, h FetcherHarness) {
	for _, c := range fetchCases {
		t.Run(c.name, func(t *testing.T) {
			if c.skip != nil && c.skip(&h) {
				t.Skip("not of this fetcher")
			}
			f := newFetchTest(t, &h)
			c.run(f)
			f.noLeftovers()
			if t.Failed() {
				t.Logf("the rule: %s", c.rule)
			}
		})
	}
}

// A fetchTest is one case under way.
type fetchTest struct {
	*testing.T
	h       *FetcherHarness
	fetcher stage.Fetcher
	env     *stage.Env
	top     string // holds work and secret
	work    *os.Root
}

func newFetchTest(t *testing.T, h *FetcherHarness) *fetchTest {
	f := &fetchTest{T: t, h: h, fetcher: h.New(t), env: &stage.Env{}, top: t.TempDir()}
	if h.Env != nil {
		f.env = h.Env(t)
	}
	f.env.NoBind = true
	if os.Geteuid() == 0 {
		f.env.UID, f.env.GID = 1000, 1001
	}
	f.must(os.Mkdir(f.path(""), 0o755))
	f.must(os.WriteFile(filepath.Join(f.top, "secret"), []byte("SECRET"), 0o644))
	work, err := os.OpenRoot(f.path(""))
	f.must(err)
	t.Cleanup(func() { work.Close() })
	f.work = work
	return f
}

func (f *fetchTest) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// path returns the host's path of a name in the work folder.
func (f *fetchTest) path(name string) string { return filepath.Join(f.top, "work", name) }

// file returns where the contents of an input to to are.
func (f *fetchTest) file(to string) string {
	if f.h.Tree {
		return filepath.Join(f.path(to), "data")
	}
	return f.path(to)
}

func (f *fetchTest) input(data, to string) *caisson.Input {
	in := f.h.Input(f.T, data)
	in.To = to
	return &in
}

func (f *fetchTest) fetch(in *caisson.Input) (*stage.Fetched, error) {
	return f.fetcher.Fetch(f.Context(), in, f.work, f.env)
}

// holds checks the contents of a file.
func (f *fetchTest) holds(path, want string) {
	f.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		f.Errorf("%s = %d bytes %.40q, %v, want %d bytes %.40q", path, len(got), got, err, len(want), want)
	}
}

// absent checks that nothing is at a path.
func (f *fetchTest) absent(path string) {
	f.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		f.Errorf("%s is there: %v", path, err)
	}
}

// noLeftovers checks that nothing temporary stayed and the secret is as it was.
func (f *fetchTest) noLeftovers() {
	f.holds(filepath.Join(f.top, "secret"), "SECRET")
	f.must(filepath.WalkDir(f.top, func(path string, _ fs.DirEntry, err error) error {
		if atomicfile.IsTemp(filepath.Base(path)) {
			f.Errorf("temporary file left: %s", path)
		}
		return err
	}))
	entries, err := os.ReadDir(f.top)
	if err != nil || len(entries) != 2 {
		f.Errorf("beside the work folder: %v, %v", entries, err)
	}
}

func isTree(h *FetcherHarness) bool    { return h.Tree }
func isFile(h *FetcherHarness) bool    { return !h.Tree }
func isInstant(h *FetcherHarness) bool { return h.Instant }
func noAbsent(h *FetcherHarness) bool  { return h.Absent == nil }

func sum(data string) string {
	digest := sha256.Sum256([]byte(data))
	return hex.EncodeToString(digest[:])
}

var fetchCases = []fetchCase{
	{name: "Lands", rule: "Fetch brings the data to in.To and makes the folders above it", run: func(f *fetchTest) {
		data := strings.Repeat("0123456789abcdef", 100_000)
		in := f.input(data, "a/b/c")
		f.must(f.fetcher.CheckInput(in, f.env))
		got, err := f.fetch(in)
		f.must(err)
		f.holds(f.file("a/b/c"), data)
		if got.Bytes != int64(len(data)) || got.Bind != "" {
			f.Errorf("Fetched = %+v, want %d bytes and no bind", got, len(data))
		}
		if got.SHA256 != "" && got.SHA256 != sum(data) {
			f.Errorf("digest %s, want %s", got.SHA256, sum(data))
		}
	}},
	{name: "Empty", rule: "an empty file is a file", run: func(f *fetchTest) {
		_, err := f.fetch(f.input("", "e"))
		f.must(err)
		f.holds(f.file("e"), "")
	}},
	{name: "Binary", rule: "bytes arrive as they are", run: func(f *fetchTest) {
		data := string(bytes.Repeat([]byte("\x00\xff\r\n\x1b\xfe"), 1000))
		_, err := f.fetch(f.input(data, "b"))
		f.must(err)
		f.holds(f.file("b"), data)
	}},
	{name: "Again", rule: "fetching the same again is harmless", run: func(f *fetchTest) {
		in := f.input("data", "a")
		for range 2 {
			_, err := f.fetch(in)
			f.must(err)
		}
		f.holds(f.file("a"), "data")
	}},
	{name: "Digest", rule: "the digest is checked, in any case of letters", skip: isTree, run: func(f *fetchTest) {
		in := f.input("data", "a")
		in.SHA256 = strings.ToUpper(sum("data"))
		got, err := f.fetch(in)
		f.must(err)
		if got.SHA256 != sum("data") {
			f.Errorf("Fetched.SHA256 = %q, want %q", got.SHA256, sum("data"))
		}
		f.holds(f.file("a"), "data")
	}},
	{name: "ErrDigest", rule: "nothing with a wrong digest stays at in.To", skip: isTree, run: func(f *fetchTest) {
		in := f.input("data", "a")
		in.SHA256 = sum("other")
		if _, err := f.fetch(in); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), sum("data")) {
			f.Errorf("Fetch = %v, want ErrInvalid that tells the digest", err)
		}
		f.absent(f.path("a"))
	}},
	{name: "ErrDigestOfTree", rule: "a digest of a folder is refused", skip: isFile, run: func(f *fetchTest) {
		in := f.input("data", "a")
		in.SHA256 = sum("data")
		if _, err := f.fetch(in); !errors.Is(err, caisson.ErrInvalid) {
			f.Errorf("Fetch = %v, want ErrInvalid", err)
		}
		f.absent(f.file("a"))
	}},
	{name: "ErrMaxSize", rule: "what is larger than max_size is refused and does not stay", run: func(f *fetchTest) {
		in := f.input(strings.Repeat("x", 5000), "a")
		in.MaxSize = 4999
		if _, err := f.fetch(in); !errors.Is(err, caisson.ErrInvalid) {
			f.Errorf("Fetch over max_size = %v, want ErrInvalid", err)
		}
		f.absent(f.file("a"))
		in.MaxSize = 5000
		if _, err := f.fetch(in); err != nil {
			f.Errorf("Fetch at max_size = %v", err)
		}
	}},
	{name: "Mode", rule: "mode gives the file its permission bits", skip: isTree, run: func(f *fetchTest) {
		in := f.input("data", "a")
		in.Mode = "0751"
		_, err := f.fetch(in)
		f.must(err)
		if info, err := os.Stat(f.path("a")); err != nil || info.Mode() != 0o751 {
			f.Errorf("mode %v, %v, want 0751", info.Mode(), err)
		}
	}},
	{name: "Writable", rule: "a writable input can be written by its owner", run: func(f *fetchTest) {
		in := f.input("data", "a")
		in.Writable = true
		_, err := f.fetch(in)
		f.must(err)
		if info, err := os.Stat(f.file("a")); err != nil || info.Mode().Perm()&0o600 != 0o600 {
			f.Errorf("mode %v, %v, want the owner to write", info.Mode(), err)
		}
	}},
	{name: "Owner", rule: "what is made belongs to the task's user on disk", run: func(f *fetchTest) {
		if os.Geteuid() != 0 {
			f.Skip("needs root")
		}
		_, err := f.fetch(f.input("data", "a/b"))
		f.must(err)
		for _, path := range []string{f.path("a"), f.path("a/b"), f.file("a/b")} {
			if uid, gid := owner(f.T, path); uid != 1000 || gid != 1001 {
				f.Errorf("%s belongs to %d:%d, want 1000:1001", path, uid, gid)
			}
		}
	}},
	{name: "Progress", rule: "progress never goes back and ends at the size", run: func(f *fetchTest) {
		var last int64
		f.env.Progress = func(done, total int64) {
			if done < last || total >= 0 && done > total {
				f.Errorf("progress %d of %d after %d", done, total, last)
			}
			last = done
		}
		_, err := f.fetch(f.input(strings.Repeat("x", 3<<20), "a"))
		f.must(err)
		if last != 3<<20 && !f.h.Tree {
			f.Errorf("progress ended at %d, want %d", last, 3<<20)
		}
	}},
	{name: "ErrAbsent", rule: "data that is not there is ErrNotFound", skip: noAbsent, run: func(f *fetchTest) {
		in := f.h.Absent(f.T)
		in.To = "a"
		if _, err := f.fetch(&in); !errors.Is(err, caisson.ErrNotFound) {
			f.Errorf("Fetch = %v, want ErrNotFound", err)
		}
		f.absent(f.file("a"))
	}},
	{name: "Optional", rule: "the absence of optional data is no error", skip: noAbsent, run: func(f *fetchTest) {
		in := f.h.Absent(f.T)
		in.To, in.Optional = "a", true
		if got, err := f.fetch(&in); err != nil || !got.Absent {
			f.Errorf("Fetch = %+v, %v, want Absent", got, err)
		}
		f.absent(f.file("a"))
	}},
	{name: "ErrFields", rule: "CheckInput and Fetch refuse wrong fields before anything is done", run: func(f *fetchTest) {
		for name, change := range map[string]func(*caisson.Input){
			"no to":          func(in *caisson.Input) { in.To = "" },
			"absolute to":    func(in *caisson.Input) { in.To = "/etc/x" },
			"to outside":     func(in *caisson.Input) { in.To = "../secret" },
			"to not clean":   func(in *caisson.Input) { in.To = "a/../b" },
			"to with zero":   func(in *caisson.Input) { in.To = "a\x00" },
			"short digest":   func(in *caisson.Input) { in.SHA256 = "abcd" },
			"no digest":      func(in *caisson.Input) { in.SHA256 = strings.Repeat("zz", 32) },
			"no octal":       func(in *caisson.Input) { in.Mode = "rw" },
			"set-id mode":    func(in *caisson.Input) { in.Mode = "4755" },
			"negative limit": func(in *caisson.Input) { in.MaxSize = -1 },
		} {
			in := f.input("data", "a")
			change(in)
			if err := f.fetcher.CheckInput(in, f.env); !errors.Is(err, caisson.ErrInvalid) {
				f.Errorf("%s: CheckInput = %v, want ErrInvalid", name, err)
			}
			if _, err := f.fetch(in); !errors.Is(err, caisson.ErrInvalid) {
				f.Errorf("%s: Fetch = %v, want ErrInvalid", name, err)
			}
		}
		if entries, err := os.ReadDir(f.path("")); err != nil || len(entries) != 0 {
			f.Errorf("the work folder holds %v, %v, want nothing", entries, err)
		}
	}},
	{name: "ErrLinkInPath", rule: "a link that stands in the path to in.To is not followed", run: func(f *fetchTest) {
		f.must(os.Symlink("..", f.path("up")))
		f.must(os.Symlink(f.top, f.path("abs")))
		for _, to := range []string{"up/secret", "abs/secret", "up/new", "abs/new/x"} {
			if _, err := f.fetch(f.input("data", to)); err == nil {
				f.Errorf("Fetch to %s succeeded", to)
			}
		}
	}},
	{name: "LinkAtEnd", rule: "a link at in.To is replaced or refused, never followed", run: func(f *fetchTest) {
		f.must(os.Symlink("../secret", f.path("a")))
		if _, err := f.fetch(f.input("data", "a")); err == nil {
			f.holds(f.file("a"), "data")
		}
	}},
	{name: "Cancelled", rule: "a call whose context has ended fails and leaves nothing at in.To", skip: isInstant, run: func(f *fetchTest) {
		ctx, cancel := context.WithCancel(f.Context())
		cancel()
		_, err := f.fetcher.Fetch(ctx, f.input("data", "a"), f.work, f.env)
		if !errors.Is(err, context.Canceled) {
			f.Errorf("Fetch = %v, want Canceled", err)
		}
		f.absent(f.file("a"))
	}},
}
