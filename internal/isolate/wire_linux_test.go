package isolate

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// pair returns the two ends of a socket.
func pair(t *testing.T) (a, b blocking) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(fds[:]) })
	return blocking(fds[0]), blocking(fds[1])
}

func TestFrames(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	big := bytes.Repeat([]byte("0123456789"), 300_000)
	frames := []frame{
		{kind: frameSpawn, id: 1 << 60, body: []byte("x"), fds: []int{int(w.Fd()), int(r.Fd())}},
		{kind: frameOK},
		{kind: frameSetup, id: 2, body: big, fds: slices.Repeat([]int{int(r.Fd())}, maxFDs)},
		{kind: frameExit, id: 3, body: []byte{0}},
	}
	sent := make(chan error, 1)
	go func() {
		for i := range frames {
			if err := send(a, &frames[i]); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range frames {
		f, err := receive(b)
		if err != nil {
			t.Fatalf("receive %d = %v", i, err)
		}
		if f.kind != frames[i].kind || f.id != frames[i].id || !bytes.Equal(f.body, frames[i].body) || len(f.fds) != len(frames[i].fds) {
			t.Errorf("frame %d arrived as kind %d, id %d, %d bytes, %d descriptors", i, f.kind, f.id, len(f.body), len(f.fds))
		}
		if i == 0 {
			if _, err := unix.Write(f.fds[0], []byte("through")); err != nil {
				t.Error(err)
			}
		}
		for _, fd := range f.fds {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d is not closed on exec: %v", fd, err)
			}
		}
		closeAll(f.fds)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	w.Close()
	if data, err := io.ReadAll(r); string(data) != "through" || err != nil {
		t.Errorf("through the descriptor came %q, %v", data, err)
	}
	unix.Shutdown(int(a), unix.SHUT_WR)
	if _, err := receive(b); err != io.EOF {
		t.Errorf("receive at the end = %v, want EOF", err)
	}
}

func TestFrameTooLarge(t *testing.T) {
	a, _ := pair(t)
	if err := send(a, &frame{body: make([]byte, maxBody+1)}); err == nil {
		t.Error("a body over the limit was sent")
	}
	if err := send(a, &frame{fds: make([]int, maxFDs+1)}); err == nil {
		t.Error("descriptors over the limit were sent")
	}
}

func TestSetupCoding(t *testing.T) {
	want := &setup{
		hostname: "h", rootPath: "/r", alone: true, nested: true, oom: true, rootReadOnly: true, landlock: true,
		uid: 1000, gid: -1, groups: []uint32{}, root: -1, changes: -1, limits: []Limit{{Resource: 1, Soft: 2, Hard: 1<<63 - 1}}, caps: 1 << 40, sysctls: map[string]string{"a.b": "1"},
		dev: 1, sysTree: -1, runtime: -1, program: 2, config: []byte{}, shm: 1 << 40, files: 5, lastCap: 40,
		filter:  []syscall.SockFilter{{Code: 65535, Jt: 255, Jf: 1, K: 1<<32 - 1}, {}},
		cgroups: []int{2, 0},
		masked:  []string{"/a", ""}, readOnly: []string{}, everything: true,
		sockets: []Socket{{UDP: true, IP: []byte{127, 64, 0, 1}, Port: 53}, {IP: []byte{}, Port: 65535}},
		entries: []Entry{{Path: "/x", Contents: []byte{0, 1, 255}, Mode: 0o7777, Owned: true}, {Path: "/l", Link: "x", Contents: []byte{}}},
		mounts: []place{
			{Mount: Mount{Type: Bind, Source: "/s", Target: "/t", ReadOnly: true}, source: 0, folder: true},
			{Mount: Mount{Type: Tmpfs, Target: "/u", Size: 1 << 50, Mode: 0o1777}, source: -1},
		},
	}
	got := decodeSetup(want.encode(), []int{100, 101, 102})
	want.dev, want.program, want.cgroups, want.mounts[0].source = 101, 102, []int{102, 100}, 100
	if !reflect.DeepEqual(got, want) {
		t.Errorf("a setup arrives as\n%+v\nwant\n%+v", got, want)
	}
	want.groups = nil
	if got := decodeSetup((&setup{root: -1, changes: -1, dev: -1, sysTree: -1, runtime: -1, program: -1}).encode(), nil); got.groups != nil {
		t.Errorf("no groups arrive as %v", got.groups)
	}
	p := &Program{Args: []string{"a", ""}, Env: []string{}, Dir: "/d", Terminal: true, Cols: 65535, Rows: 1}
	if got := decodeProgram(p.encode()); !reflect.DeepEqual(got, p) {
		t.Errorf("a program arrives as %+v, want %+v", got, p)
	}
}

func TestErrorCoding(t *testing.T) {
	err := decodeError(encodeError(&stepError{stepExec, unix.ENOENT}))
	var s *stepError
	if !errors.As(err, &s) || s.step != stepExec || !errors.Is(err, unix.ENOENT) {
		t.Errorf("a step's error arrives as %v", err)
	}
	err = decodeError(encodeError(&caisson.Error{Item: "x", Kind: caisson.ErrDenied, Err: unix.EPERM}))
	if !errors.Is(err, caisson.ErrDenied) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "x: ") {
		t.Errorf("an error with a kind arrives as %v", err)
	}
	err = decodeError(encodeError(&ExecError{Code: 126, Err: io.EOF}))
	var x *ExecError
	if !errors.As(err, &x) || x.Code != 126 || err.Error() != "EOF" {
		t.Errorf("an ExecError arrives as %v", err)
	}
	if err = decodeError(encodeError(io.EOF)); err.Error() != "EOF" || caisson.KindOf(err) != caisson.ErrUnknown {
		t.Errorf("another error arrives as %v", err)
	}
	if err = decodeError(encodeError(unix.ENOSPC)); !errors.Is(err, caisson.ErrExhausted) {
		t.Errorf("ENOSPC arrives as %v", err)
	}
}

func TestCandidates(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want []string
	}{
		{nil, []string{"/usr/local/sbin/x", "/usr/local/bin/x", "/usr/sbin/x", "/usr/bin/x", "/sbin/x", "/bin/x"}},
		{[]string{"PATH=/a:/b/"}, []string{"/a/x", "/b/x"}},
		{[]string{"PATH=:/a::"}, []string{"/a/x"}},
		{[]string{"PATH="}, nil},
	} {
		if got := candidates(&Program{Args: []string{"x"}, Env: test.env}); !slices.Equal(got, test.want) {
			t.Errorf("candidates with %q = %q, want %q", test.env, got, test.want)
		}
	}
	if got := candidates(&Program{Args: []string{"./x"}}); !slices.Equal(got, []string{"./x"}) {
		t.Errorf("candidates of a path = %q", got)
	}
}

// TestSourceReplaced has a folder exchanged between the parent's look and
// init's.
func TestSourceReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, _, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Rename(path, filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := takeSource(path, fd, mountAttrs); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("takeSource = %v, want ErrDenied", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", path); err != nil {
		t.Fatal(err)
	}
	if _, err := takeSource(path, fd, mountAttrs); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("takeSource of a link = %v, want ErrDenied", err)
	}
}
