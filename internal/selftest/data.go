//go:build unix

package selftest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/git"
	web "github.com/caissonrun/caisson/stage/http"
)

// ownFolder is the Bound of attacks on data.
const ownFolder = "it aims at files and servers of its own"

// data returns the attacks on whatever moves data, which no engine has a part
// in. clean is how names are shown.
func data(clean func(string) string) []attack.Attack {
	list := []attack.Attack{
		{
			ID: "B19", Name: "git/options", Run: gitOptions, Bound: ownFolder, Host: noGit,
			Tries: "URLs and references that are options or commands: --upload-pack, -oProxyCommand, ext::, file paths",
			CVE:   []string{"CVE-2017-1000117", "CVE-2024-3817", "CVE-2018-17456"},
		},
		{
			ID: "B19", Name: "git/hooks", Run: gitHooks, Bound: ownFolder, Host: noGit,
			Tries: "a repository with hooks, filters, settings and submodules that run commands or write outside",
			CVE:   []string{"CVE-2024-32002", "CVE-2025-48384", "CVE-2018-11235"},
		},
		{
			ID: "B20", Name: "http/private", Run: httpPrivate, Bound: ownFolder,
			Tries: "reach a private address by every spelling of it, and by a redirect",
			CVE:   []string{"CVE-2024-29021"},
		},
		{
			ID: "B21", Name: "http/contents", Run: httpContents, Bound: ownFolder,
			Tries: "contents that are other, longer or shorter than declared",
		},
		{
			ID: "C23", Name: "collect/swap", Run: collectSwap, Bound: ownFolder,
			Tries: "swap an output and the folders above it for links while it is collected, for two seconds",
			CVE:   []string{"CVE-2018-15664", "CVE-2025-8959", "CVE-2024-28185"},
		},
		{
			ID: "C24", Name: "collect/special", Run: collectSpecial, Bound: ownFolder,
			Tries: "outputs that are FIFOs, sockets, loops, links into /proc, a terabyte of holes, a thousand folders deep",
		},
		{
			ID: "C26", Name: "names/shown", Run: func(t *attack.Trial) { shownNames(t, clean) }, Bound: ownFolder,
			Tries: "names of outputs and tasks that move the cursor, turn the text round, or pass for a line of Caisson's",
			CVE:   []string{"CVE-2021-42574"},
		},
	}
	return slices.Concat(list, imageData())
}

// shownNames looks at what is left of hostile names.
func shownNames(t *attack.Trial, clean func(string) string) {
	for _, name := range []string{
		"\x1b[2J", "\x1b]0;x\a", "\x9b31m", "a\rb", "a\nb", "a\bb", "a\x00b", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\u2028", "\xff\xfe", "\x7f",
	} {
		shown := clean(name)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the name %q is shown as %q", name, shown)
		}
	}
}

func noGit() string {
	if _, err := exec.LookPath("git"); err != nil {
		return "git is not installed, and nothing is fetched by it"
	}
	return ""
}

// A landing is a work folder that something is fetched to.
type landing struct {
	t    *attack.Trial
	root *os.Root
	env  *stage.Env
}

// newLanding makes an empty work folder.
func newLanding(t *attack.Trial, name string) *landing {
	dir := t.Folder(name)
	root, err := os.OpenRoot(dir)
	t.OK(err, "OpenRoot")
	t.After(func() { root.Close() })
	return &landing{t, root, &stage.Env{BaseDir: t.Dir, Temp: t.Folder(name + "-temp"), UID: os.Getuid(), GID: os.Getgid(), Trusted: true}}
}

// fetch checks and fetches an input.
func (l *landing) fetch(f stage.Fetcher, in caisson.Input) error {
	if in.To == "" {
		in.To = "in"
	}
	if err := f.CheckInput(&in, l.env); err != nil {
		return err
	}
	_, err := f.Fetch(l.t.Context(), &in, l.root, l.env)
	return err
}

// gitOut runs git in a repository that an attack makes.
func gitOut(t *attack.Trial, dir string, args ...string) {
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %.200s", err, out)
	}
	t.OK(err, "git "+args[0])
}

// newRepository makes a repository with one commit.
func newRepository(t *attack.Trial, name string) string {
	dir := t.Folder(name)
	gitOut(t, dir, "init", "--quiet", "--initial-branch=main")
	t.OK(os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644), "WriteFile")
	gitOut(t, dir, "add", "f")
	gitOut(t, dir, "commit", "--quiet", "--message=x")
	return dir
}

func gitOptions(t *attack.Trial) {
	s, err := git.New(nil)
	t.OK(err, "git.New")
	marks := t.Folder("marks")
	touch := "touch " + marks + "/mark"
	dir := newRepository(t, "repository")
	for i, in := range []caisson.Input{
		{From: "git+file://--upload-pack=" + touch},
		{From: "git+file:--upload-pack=" + touch},
		{From: "git+ssh://-oProxyCommand=" + strings.ReplaceAll(touch, " ", "%20") + "/x"},
		{From: "git+https://-oProxyCommand=x/x"},
		{From: "git+ext::sh -c " + touch},
		{From: "ext::sh -c " + touch},
		{From: "git+https://ext::" + touch},
		{From: "git+file:" + dir, Git: &caisson.GitInput{Ref: "--upload-pack=" + touch}},
		{From: "git+file:" + dir, Git: &caisson.GitInput{Ref: "-u" + touch}},
		{From: "git+file:" + dir, Git: &caisson.GitInput{Folder: "../../marks"}},
		{From: "git+file:" + dir + "\n--upload-pack=" + touch},
	} {
		if err := newLanding(t, fmt.Sprint("work", i)).fetch(s, in); err == nil {
			t.Errorf("%q with %+v was fetched", in.From, in.Git)
		}
	}
	t.Empty(marks)
}

func gitHooks(t *attack.Trial) {
	s, err := git.New(nil)
	t.OK(err, "git.New")
	marks := t.Folder("marks")
	script := fmt.Sprintf("#!/bin/sh\ntouch %s/mark-$$\n", marks)
	dir := newRepository(t, "repository")
	for name, text := range map[string]string{
		".gitattributes": "* filter=evil diff=evil merge=evil export-subst\n",
		".gitmodules": "[submodule \"a\"]\n\tpath = sub\r\n\turl = ext::sh -c touch% " + marks + "/m\n" +
			"[submodule \"../../x\"]\n\tpath = ../../x\n\turl = .\n\tupdate = !touch " + marks + "/u\n",
	} {
		t.OK(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644), "WriteFile")
	}
	t.OK(os.Symlink(".git/hooks", filepath.Join(dir, "linked")), "Symlink")
	gitOut(t, dir, "add", "--all")
	gitOut(t, dir, "commit", "--quiet", "--message=y")
	// Only now: what makes the repository must not be caught itself.
	for _, hook := range []string{"post-checkout", "post-merge", "pre-receive", "reference-transaction", "post-index-change", "upload-pack"} {
		path := filepath.Join(dir, ".git", "hooks", hook)
		t.OK(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(script), 0o755)), "WriteFile")
	}
	evil := filepath.Join(t.Folder("programs"), "evil")
	t.OK(os.WriteFile(evil, []byte(script), 0o755), "WriteFile")
	config, err := os.OpenFile(filepath.Join(dir, ".git", "config"), os.O_APPEND|os.O_WRONLY, 0)
	t.OK(err, "OpenFile")
	_, err = fmt.Fprintf(config, "[core]\n\tfsmonitor = %[1]s\n\tsshCommand = %[1]s\n\tpager = %[1]s\n\teditor = %[1]s\n"+
		"[filter \"evil\"]\n\tsmudge = %[1]s\n\tclean = %[1]s\n\tprocess = %[1]s\n[uploadpack]\n\tpackObjectsHook = %[1]s\n[protocol \"ext\"]\n\tallow = always\n", evil)
	t.OK(errors.Join(err, config.Close()), "writing the repository's settings")

	for i, in := range []caisson.Input{
		{From: "git+file:" + dir},
		{From: "git+file:" + dir, Git: &caisson.GitInput{Submodules: true}},
		{From: "git+file:" + dir, Git: &caisson.GitInput{Depth: -1, Folder: "linked"}},
	} {
		// What of it can be had may be had; nothing of it may run.
		_ = newLanding(t, fmt.Sprint("work", i)).fetch(s, in)
	}
	t.Empty(marks)
}

// serve runs a server until the trial's end, and returns its port.
func serve(t *attack.Trial, handler http.HandlerFunc) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	t.OK(err, "Listen")
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.After(func() { server.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func httpPrivate(t *attack.Trial) {
	var hits atomic.Int64
	port := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		_, _ = io.WriteString(w, "private")
	})
	s, err := web.New(&web.Options{Tries: 1})
	t.OK(err, "http.New")
	for i, host := range []string{
		"127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
		"[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "127.0.0.1.", "user@127.0.0.1", "127.0.0.2", "[::]", "%31%32%37.0.0.1", "①②⑦.0.0.1",
	} {
		l := newLanding(t, fmt.Sprint("work", i))
		l.env.Trusted = false
		if err := l.fetch(s, caisson.Input{From: fmt.Sprintf("http://%s:%d/x", host, port)}); err == nil {
			t.Errorf("a private address was fetched from as %s", host)
		}
	}
	// The caller may name one itself; where a server sends it is another matter.
	away := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("http://127.0.0.1:%d/secret", port), http.StatusFound)
	})
	if err := newLanding(t, "away").fetch(s, caisson.Input{From: fmt.Sprintf("http://127.0.0.1:%d/", away)}); err == nil {
		t.Errorf("a redirect led to a private address")
	}
	for _, metadata := range []string{"169.254.169.254", "[fd00:ec2::254]", "100.100.100.200"} {
		l := newLanding(t, "metadata-"+strings.Trim(metadata, "[]"))
		l.env.Trusted = false
		err := l.fetch(s, caisson.Input{From: "http://" + metadata + "/latest/"})
		if !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("a metadata service at %s: %v, want it denied", metadata, err)
		}
	}
	if n := hits.Load(); n > 0 {
		t.Errorf("a private server was asked %d times", n)
	}
}

func httpContents(t *attack.Trial) {
	const text = "what the server gives"
	port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/short":
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, text)
		case "/endless":
			for i := 0; i < 1<<14; i++ {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<12)); err != nil {
					return
				}
			}
		default:
			_, _ = io.WriteString(w, text)
		}
	})
	s, err := web.New(&web.Options{Tries: 1, Delay: time.Millisecond, Idle: 5 * time.Second})
	t.OK(err, "http.New")
	url := "http://127.0.0.1:" + strconv.Itoa(port)
	other := fmt.Sprintf("%x", sha256.Sum256([]byte("other")))
	for i, in := range []caisson.Input{
		{From: url + "/", SHA256: other},
		{From: url + "/", MaxSize: caisson.Bytes(len(text) - 1)},
		{From: url + "/short"},
		{From: url + "/endless", MaxSize: caisson.MiB},
	} {
		l := newLanding(t, fmt.Sprint("work", i))
		if err := l.fetch(s, in); err == nil {
			t.Errorf("%s was accepted against %.8s and %v", in.From, in.SHA256, in.MaxSize)
		}
		if info, err := l.root.Stat("in"); err == nil {
			t.Errorf("%s left %d bytes in its place", in.From, info.Size())
		}
	}
}

func collectSwap(t *attack.Trial) {
	flag, text := t.Flag()
	work := t.Folder("work")
	t.OK(os.MkdirAll(filepath.Join(work, "out", "sub"), 0o755), "MkdirAll")
	t.OK(os.WriteFile(filepath.Join(work, "out", "sub", "flag"), []byte("inside"), 0o644), "WriteFile")
	// Who swaps stands for a process of the task that still lives.
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(t.Times(2))*time.Second)
	var swapping sync.WaitGroup
	defer swapping.Wait()
	defer cancel()
	swapping.Go(func() { swapFile(ctx, filepath.Join(work, "out", "f"), flag) })
	swapping.Go(func() { swapFolder(ctx, filepath.Join(work, "out", "sub"), t.Dir) })

	for ctx.Err() == nil && !t.Failed() {
		root, err := safefs.Open(work, nil)
		t.OK(err, "safefs.Open")
		for _, pattern := range []string{"out/**", "out/f", "out/sub/flag", "out/*/flag"} {
			files, _ := stage.Collect(ctx, root, &caisson.Output{Path: pattern, To: "file:/x", Optional: true})
			for _, f := range files {
				readSafely(t, &f, text)
			}
		}
		root.Close()
	}
}

// readSafely opens what was collected and looks whether it is the host's.
func readSafely(t *attack.Trial, f *stage.File, text string) {
	if f.Open == nil {
		return
	}
	file, err := f.Open()
	if err != nil {
		return
	}
	defer file.Close()
	data, _ := io.ReadAll(io.LimitReader(file, 1<<16))
	if strings.Contains(string(data), text) {
		t.Errorf("the output %s is the host's file", f.Path)
	}
}

// swapFile makes path a file and a link to target, in turn.
func swapFile(ctx context.Context, path, target string) {
	for ctx.Err() == nil {
		_ = os.WriteFile(path+".file", []byte("inside"), 0o644)
		_ = os.Rename(path+".file", path)
		_ = os.Symlink(target, path+".link")
		_ = os.Rename(path+".link", path)
	}
}

// swapFolder makes path a folder and a link to target, in turn.
func swapFolder(ctx context.Context, path, target string) {
	_ = os.Symlink(target, path+".link")
	for ctx.Err() == nil {
		_ = os.Rename(path, path+".away")
		_ = os.Rename(path+".link", path)
		_ = os.Rename(path, path+".link")
		_ = os.Rename(path+".away", path)
	}
}

func collectSpecial(t *attack.Trial) {
	work := t.Folder("work")
	at := func(name string) string { return filepath.Join(work, name) }
	deep := at("deep")
	for range 200 {
		deep = filepath.Join(deep, "dddd")
	}
	holes, err := os.Create(at("holes"))
	t.OK(err, "Create")
	err = holes.Truncate(1 << 40)
	if errors.Is(err, unix.EFBIG) {
		err = holes.Truncate(1 << 35) // the file system has a limit of its own
	}
	t.OK(errors.Join(err, holes.Close(), os.MkdirAll(deep, 0o755), unix.Mkfifo(at("fifo"), 0o666),
		os.Symlink("loop", at("loop")), os.Symlink(".", at("self")), os.Symlink("/proc/self/environ", at("environ")),
		os.Symlink("/dev/zero", at("zero")), os.WriteFile(at("fine"), []byte("fine"), 0o644)), "making outputs")
	root, err := safefs.Open(work, nil)
	t.OK(err, "safefs.Open")
	defer root.Close()
	files, _ := stage.Collect(t.Context(), root, &caisson.Output{Path: "**", To: "file:/x"})
	fine := false
	for _, f := range files {
		fine = fine || f.Path == "fine"
		if f.Mode.Type() != 0 && !f.Mode.IsDir() && f.Path != "self" && f.Path != "loop" {
			t.Errorf("the output has %s of type %v", f.Path, f.Mode.Type())
		}
	}
	if !fine {
		t.Errorf("an ordinary file beside strange ones is not collected")
	}
	_, err = stage.Collect(t.Context(), root, &caisson.Output{Path: "holes", To: "file:/x", MaxSize: caisson.GiB})
	if !errors.Is(err, caisson.ErrInvalid) && !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("a terabyte of holes under a limit of 1 GiB: %v", err)
	}
	for _, name := range []string{"fifo", "environ", "zero"} {
		files, err := stage.Collect(t.Context(), root, &caisson.Output{Path: name, To: "file:/x"})
		if err == nil && len(files) > 0 {
			t.Errorf("the output %s was collected", name)
		}
	}
}
