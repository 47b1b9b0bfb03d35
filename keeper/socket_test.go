//go:build linux

package keeper_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/keeper"
)

func itoa(n int) string { return strconv.Itoa(n) }

func setInheritable(t *testing.T, f *os.File) {
	t.Helper()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
}

func clearInheritable(t *testing.T, f *os.File) {
	t.Helper()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

func dialRaw(t *testing.T, k *kept) *net.UnixConn {
	t.Helper()
	// The test's folder may be too long for an address.
	dir, err := os.Open(filepath.Dir(k.spec.Socket))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(k.spec.Socket))
	var conn net.Conn
	eventually(t, "a connection is taken", func() bool {
		conn, err = net.Dial("unix", path)
		return !errors.Is(err, syscall.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func rawFrame(text string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// closedSoon fails unless the keeper ends the connection.
func closedSoon(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%s: %v, want the end of the connection", what, err)
	}
}

const greeting = `{"id":1,"op":"hello","version":1}`

func TestGarbageOnTheSocket(t *testing.T) {
	k := start(t, spec(t, untilGo))
	rnd := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for name, data := range map[string][]byte{
		"noise":            noise,
		"HTTP":             []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"huge length":      {0xff, 0xff, 0xff, 0xff, '{'},
		"empty":            rawFrame(""),
		"not JSON":         rawFrame("hello"),
		"no greeting":      rawFrame(`{"id":1,"op":"destroy"}`),
		"long greeting":    rawFrame(greeting + strings.Repeat(" ", 1000)),
		"nested":           rawFrame(strings.Repeat("[", 250)),
		"huge request":     append(rawFrame(greeting), 0xff, 0xff, 0xff, 0x7f, 0),
		"garbage request":  append(rawFrame(greeting), rawFrame(`{"id":2,"op":7}`)...),
		"program of noise": append(rawFrame(greeting), rawFrame(`{"id":2,"op":"exec","program":{"args":7}}`)...),
	} {
		conn := dialRaw(t, k)
		if _, err := conn.Write(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conn.CloseWrite()
		closedSoon(t, name, conn)
	}
	// Requests that are well formed and wrong are answered, and so is the next.
	conn := dialRaw(t, k)
	conn.SetDeadline(time.Now().Add(patience))
	for _, req := range []string{
		greeting, `{"id":2,"op":"none such"}`, `{"id":3,"op":"hello"}`, `{"id":4,"op":"exec"}`,
		`{"id":5,"op":"exec","program":{"args":[]}}`, `{"id":6,"op":"stop"}`, `{"id":7,"op":"signal","signal":-1}`,
		`{"id":8,"op":"status"}`,
	} {
		if _, err := conn.Write(rawFrame(req)); err != nil {
			t.Fatal(err)
		}
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			t.Fatalf("%s: %v", req, err)
		}
		body := make([]byte, binary.LittleEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, body); err != nil {
			t.Fatalf("%s: %v", req, err)
		}
		isError := strings.Contains(string(body), `"error"`)
		if wantError := req != greeting && !strings.Contains(req, "status"); isError != wantError {
			t.Errorf("%s: %s", req, body)
		}
	}
	k.letGo()
	if exit := k.wait(); exit.Code != 3 {
		t.Errorf("exit = %+v, want code 3", exit)
	}
}

// A client that sends requests and reads no answer loses its connection, and
// nobody else notices.
func TestClientThatDoesNotRead(t *testing.T) {
	k := start(t, spec(t, untilGo))
	conn := dialRaw(t, k)
	conn.SetWriteDeadline(time.Now().Add(patience))
	conn.Write(rawFrame(greeting))
	req := rawFrame(`{"id":2,"op":"status"}`)
	var err error
	for err == nil {
		_, err = conn.Write(req)
	}
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Errorf("the keeper neither reads nor closes: %v", err)
	}
	k.letGo()
	k.wait()
}

func TestManyConnections(t *testing.T) {
	k := start(t, spec(t, untilGo))
	var conns []net.Conn
	for range 300 {
		conn := dialRaw(t, k)
		conn.Write(rawFrame(greeting))
		conns = append(conns, conn)
	}
	// Those that are too many are closed, and the client that was there first
	// is served.
	closedSoon(t, "the last", conns[len(conns)-1])
	if _, err := k.Status(k.ctx()); err != nil {
		t.Errorf("Status = %v", err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "there is room again", func() bool {
		c, err := keeper.Dial(k.ctx(), k.spec.Dir)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	k.letGo()
	k.wait()
}

// Another user can't talk to a keeper, even where folder and socket let him.
func TestOtherUserIsRefused(t *testing.T) {
	needRoot(t, "it becomes another user")
	s := spec(t, untilGo)
	dir, err := os.MkdirTemp("/tmp", "keeper-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.Socket = filepath.Join(dir, "sock")
	start(t, s)
	for _, path := range []string{dir, s.Socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := talkAs(t, 0, s.Socket); n == 0 {
		t.Errorf("root gets no answer: %v", err)
	}
	if n, err := talkAs(t, 65534, s.Socket); n != 0 || errors.Is(err, syscall.EACCES) {
		t.Errorf("another user gets %d bytes, %v, want none although it can connect", n, err)
	}
}

// talkAs greets a keeper as a user and returns how much it answers.
func talkAs(t *testing.T, uid int, socket string) (n int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Only this thread becomes the user, and it ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return
		}
		if _, err = unix.Write(fd, rawFrame(greeting)); err == nil {
			n, err = unix.Read(fd, make([]byte, 1000))
			n = max(n, 0)
		}
	}()
	<-done
	return n, err
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// children returns the pids of a process's children.
func children(t *testing.T, pid int) []string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		all = append(all, strings.Fields(string(data))...)
	}
	return all
}

// Descriptors that a client sends along are not kept.
func TestSentDescriptorsAreNotKept(t *testing.T) {
	needRoot(t, "it looks at a keeper's descriptors")
	k := start(t, spec(t, untilGo))
	status, err := k.Status(k.ctx())
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", status.PID))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	conn := dialRaw(t, k)
	conn.SetDeadline(time.Now().Add(patience))
	rights := unix.UnixRights(0, 0, 0, 0, 0, 0, 0, 0)
	for i := range 100 {
		req := rawFrame(greeting)
		if i > 0 {
			req = rawFrame(`{"id":2,"op":"status"}`)
		}
		if _, _, err := conn.WriteMsgUnix(req, rights, nil); err != nil {
			t.Fatal(err)
		}
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.LittleEndian.Uint32(size[:]))); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after > before+2 {
		t.Errorf("the keeper had %d descriptors and has %d", before, after)
	}
	k.letGo()
	k.wait()
}
