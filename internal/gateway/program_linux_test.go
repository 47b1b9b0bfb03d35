package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/gateway"
	"github.com/caissonrun/caisson/internal/slowtest"
)

// programWord has this test's own program be an operator's: see TestMain.
const programWord = "gateway-test-program"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == programWord {
		os.Exit(serveInherited(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == attendantWord {
		os.Exit(attend(os.Args[2]))
	}
	os.Exit(m.Run())
}

// serveInherited serves HTTP at descriptor 3, or fails to in the way that is
// asked for.
func serveInherited(how string) int {
	fmt.Fprintln(os.Stderr, "this is", how)
	switch how {
	case "dies":
		return 3
	case "hangs":
		time.Sleep(time.Minute)
		return 0
	case "deaf":
		os.NewFile(3, "").Close()
		time.Sleep(time.Minute)
		return 0
	case "stubborn":
		cmd := exec.Command("/bin/sh", "-c", `trap "" TERM; while :; do sleep 1; done`)
		if cmd.Start() != nil {
			return 1
		}
		signal.Ignore(syscall.SIGTERM)
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	http.HandleFunc("/end", func(http.ResponseWriter, *http.Request) { os.Exit(7) })
	http.HandleFunc("/group", func(w http.ResponseWriter, _ *http.Request) {
		cmd := exec.Command("sleep", "1000")
		_ = cmd.Start()
		fmt.Fprint(w, cmd.Process.Pid)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		dir, _ := os.Getwd()
		fmt.Fprintf(w, "pid=%d listen=%s,%s host=%s auth=%v dir=%s fds=%v env=%v\n", os.Getpid(), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"),
			r.Host, len(r.Header.Get("Authorization")), dir, inherited, os.Environ())
	})
	_ = http.Serve(l, nil)
	return 0
}

// ofRuntime begin what Go itself opens in a new process.
var ofRuntime = []string{"anon_inode:", "/proc/", "/sys/fs/cgroup"}

// inherited are the descriptors that this process began with, beside its output.
var inherited = func() (list []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && e.Name() > "2" && !slices.ContainsFunc(ofRuntime, func(p string) bool { return strings.HasPrefix(to, p) }) {
			list = append(list, e.Name()+"="+to)
		}
	}
	return list
}()

// A notes collects what is logged.
type notes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.String()
}

// program opens an upstream that is this test's program, and returns what serves
// it, what ends it, and its log.
func program(t *testing.T, how string, change ...func(*gateway.Upstream)) (http.Handler, func(), *notes) {
	t.Helper()
	u := &gateway.Upstream{Command: []string{os.Args[0], programWord, how}}
	for _, f := range change {
		f(u)
	}
	said := new(notes)
	h, end := upstreamHandler(t, u).(gateway.Opener).Open(slog.New(slog.NewTextHandler(said, nil)))
	once := sync.OnceFunc(end)
	t.Cleanup(once)
	return h, once, said
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// gone waits for a process's end.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// pidOf returns the process that answers.
func pidOf(t *testing.T, w *httptest.ResponseRecorder) int {
	t.Helper()
	var pid int
	if _, err := fmt.Sscanf(w.Body.String(), "pid=%d", &pid); w.Code != 200 || err != nil {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
	return pid
}

// left lists the folders of sockets.
func left(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(os.TempDir(), "caisson-*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A program is there from the first request on, with its socket, what the
// operator adds to requests, and nothing of this process.
func TestProgram(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("GATEWAY_TEST_SECRET", value)
	open, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	leak, err := syscall.Dup(int(open.Fd())) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	dir := t.TempDir()
	h, end, said := program(t, "serves", func(u *gateway.Upstream) { u.Token, u.Dir = value, dir })
	if said.String() != "" {
		t.Errorf("it was started before anybody asked: %s", said)
	}
	w := visit(h, "GET", "http://git/", "Authorization", "mine")
	pid := pidOf(t, w)
	for _, want := range []string{fmt.Sprintf("listen=1,%d ", pid), "host=git ", fmt.Sprintf("auth=%d ", len("Bearer "+value)), "dir=" + dir + " ", "fds=[3=socket:"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q, want %q", w.Body, want)
		}
	}
	if strings.Contains(w.Body.String(), "GATEWAY_TEST_SECRET") || strings.Contains(w.Body.String(), "=/dev/null") {
		t.Errorf("a variable or descriptor came through: %q", w.Body)
	}
	if list := left(t); len(list) > 0 {
		t.Errorf("the socket has a path: %v", list)
	}
	if again := pidOf(t, visit(h, "GET", "http://git/x")); again != pid {
		t.Errorf("the second request was answered by %d, not by %d", again, pid)
	}
	child, err := strconv.Atoi(visit(h, "GET", "http://git/group").Body.String())
	if err != nil {
		t.Fatal(err)
	}
	end()
	gone(t, pid)
	gone(t, child)
	if !strings.Contains(said.String(), "this is serves") || strings.Contains(said.String(), "has ended") {
		t.Errorf("log %s, want what it said and no complaint", said)
	}
	if w := visit(h, "GET", "http://git/"); w.Code != 502 {
		t.Errorf("after the end: %d %q", w.Code, w.Body)
	}
}

// Each server has a process of its own, which ends with it.
func TestProgramOfServer(t *testing.T) {
	h := upstreamHandler(t, &gateway.Upstream{Command: []string{os.Args[0], programWord, "serves"}})
	var pids []int
	proxied(t, map[string]http.Handler{"git": h}, func(t *testing.T, b *box, at map[string]string) {
		res, _, _ := ask(t, b, at["git"], "GET / HTTP/1.1\r\nHost: git\r\n\r\n")
		body := text(res)
		var pid int
		fmt.Sscanf(body, "pid=%d", &pid)
		if !alive(pid) || slices.Contains(pids, pid) {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		pids = append(pids, pid)
		b.close()
		if alive(pid) {
			t.Error("the program has outlived its server")
		}
	})
}

// What is wrong with a program is a line for the task and one for the operator.
// It is started again, but not at once.
func TestProgramFails(t *testing.T) {
	t.Run("Dies", func(t *testing.T) {
		t.Parallel()
		h, _, said := program(t, "dies")
		var told []string
		// Each start makes the pause longer, so that a slow host has one to see as well.
		for len(told) == 0 || len(told) < 6 && !strings.Contains(told[len(told)-1], "again") {
			w := visit(h, "GET", "http://git/")
			if w.Code != 502 {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			told = append(told, w.Body.String())
		}
		const service = "caisson: the service behind git: its program has ended"
		if told[0] != service+"; its operator has to look\n" {
			t.Errorf("at first: %q", told)
		}
		again := regexp.MustCompile("^" + service + `, and is not tried again for [1-9][0-9]*s; its operator has to look\n$`)
		if !again.MatchString(told[len(told)-1]) {
			t.Errorf("then: %q", told)
		}
		if !strings.Contains(said.String(), `how="exit status 3" said="this is dies"`) {
			t.Errorf("log %s", said)
		}
	})
	t.Run("Ends", func(t *testing.T) {
		t.Parallel()
		h, _, _ := program(t, "serves")
		first := pidOf(t, visit(h, "GET", "http://git/"))
		if w := visit(h, "GET", "http://git/end"); w.Code != 502 || !strings.Contains(w.Body.String(), "its program has ended") {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		var w *httptest.ResponseRecorder
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if w = visit(h, "GET", "http://git/"); w.Code == 200 {
				break
			}
		}
		if pidOf(t, w) == first {
			t.Error("it was not started again")
		}
	})
	t.Run("NeverAnswers", func(t *testing.T) {
		t.Parallel()
		h, _, _ := program(t, "hangs", func(u *gateway.Upstream) { u.Timeout = 100 * time.Millisecond })
		if w := visit(h, "GET", "http://git/"); w.Code != 504 || w.Body.String() != "caisson: the service behind git: gave no answer in time\n" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
	t.Run("ClosesItsSocket", func(t *testing.T) {
		t.Parallel()
		h, _, _ := program(t, "deaf")
		w := visit(h, "GET", "http://git/")
		if w.Code != 502 || !strings.Contains(w.Body.String(), "connection\n") {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
	t.Run("IsGone", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		h, _, said := program(t, "", func(u *gateway.Upstream) { u.Command = []string{path} })
		os.Remove(path)
		if w := visit(h, "GET", "http://git/"); w.Code != 502 || !strings.Contains(w.Body.String(), "its program can't be started; its operator has to look") {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		if !strings.Contains(said.String(), "is not there") {
			t.Errorf("log %s", said)
		}
	})
	t.Run("DoesNotEnd", func(t *testing.T) {
		slowtest.Skip(t)
		t.Parallel()
		h, end, _ := program(t, "stubborn")
		pid := pidOf(t, visit(h, "GET", "http://git/"))
		end()
		if alive(pid) {
			t.Error("it is still there")
		}
	})
}

// A program that is not there is told of before a task begins.
func TestProgramErr(t *testing.T) {
	for name, c := range map[string]struct {
		u    gateway.Upstream
		kind caisson.Kind
		want string
	}{
		"Absent":      {gateway.Upstream{Command: []string{"/nonexistent/x"}}, caisson.ErrNotFound, "command: /nonexistent/x is not there; build or install it"},
		"Unknown":     {gateway.Upstream{Command: []string{"gateway-test-none"}}, caisson.ErrNotFound, "command: gateway-test-none is not there"},
		"NoProgram":   {gateway.Upstream{Command: []string{"/dev/null"}}, caisson.ErrInvalid, "permission denied"},
		"Both":        {gateway.Upstream{Command: []string{"/bin/sh"}, URL: "http://x"}, caisson.ErrInvalid, "can't stand beside url"},
		"Certificate": {gateway.Upstream{Command: []string{"/bin/sh"}, CAFile: "/dev/null"}, caisson.ErrInvalid, "without TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.u.Handler(); caisson.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("Handler = %v, want %v with %q", err, c.kind, c.want)
			}
		})
	}
}

// attendantWord has this test's program be a process that is killed.
const attendantWord = "gateway-test-attendant"

// attend opens a program, says which process it is, and waits.
func attend(self string) int {
	h, err := (&gateway.Upstream{Command: []string{self, programWord, "serves"}}).Handler()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	opened, _ := h.(gateway.Opener).Open(slog.New(slog.DiscardHandler))
	fmt.Print(visit(opened, "GET", "http://git/").Body)
	time.Sleep(time.Minute)
	return 0
}

// Whoever has started a program is killed: nothing is left, neither of it nor of
// its socket.
func TestProgramKill9(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.Command(os.Args[0], attendantWord, os.Args[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscanf(out, "pid=%d", &pid)
	if !alive(pid) {
		t.Errorf("no program: %v", err)
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, out)
	cmd.Wait()
	gone(t, pid)
	if list := left(t); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}
