package keeper_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

// served returns the spec of a script for bash, which can connect by itself, in
// a sandbox with a socket.
func served(t *testing.T, script string) *keeper.Spec {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil && os.Geteuid() == 0 {
		t.Fatal("bash is not installed")
	}
	if err != nil {
		t.Skip("needs bash, and this is an ordinary user")
	}
	s := isolated(t, "")
	s.Program.Args = []string{bash, "-c", script}
	s.Box.Sockets = []isolate.Socket{{IP: []byte{127, 64, 0, 1}, Port: 80}}
	return s
}

// listeners returns the client's sockets, which are closed with the test.
func listeners(t *testing.T, k *kept, c *keeper.Client) (list []net.Listener) {
	t.Helper()
	files, err := c.Sockets(k.ctx())
	if err != nil {
		t.Fatalf("Sockets: %v", err)
	}
	for _, f := range files {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		list = append(list, l)
	}
	return list
}

// answer takes one connection and answers its first line.
func answer(l net.Listener, word string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(word + " " + line))
	return err
}

const asks = `exec 3<>/dev/tcp/127.64.0.1/80; echo $0 >&3; read -r line <&3; echo "$line"`

func TestSockets(t *testing.T) {
	s := served(t, asks+"; "+asks)
	k := launch(t, s)
	first := listeners(t, k, k.Client)
	if len(first) != 1 {
		t.Fatalf("Sockets returns %d, want 1", len(first))
	}
	if err := k.Start(k.ctx()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	if err := answer(first[0], "first"); err != nil {
		t.Fatal(err)
	}
	// Whoever comes next finds who connects while nobody serves.
	first[0].Close()
	again, err := keeper.Dial(k.ctx(), s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	second := listeners(t, k, again)
	if err := answer(second[0], "second"); err != nil {
		t.Fatal(err)
	}
	if exit := k.wait(); exit.Code != 0 {
		t.Errorf("exit = %+v, want code 0", exit)
	}
	if _, err := second[0].Accept(); err == nil {
		t.Error("Accept after the end returns a connection, want an error")
	}
	if files, err := k.Sockets(k.ctx()); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Sockets after the end = %v, %v, want ErrEnded", files, err)
	}
	if err := k.Destroy(k.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Sockets(k.ctx()); !errors.Is(err, caisson.ErrAborted) {
		t.Errorf("Sockets after Destroy = %v, want ErrAborted", err)
	}
	out, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"first ", "second "} {
		if !strings.Contains(string(out), word) {
			t.Errorf("the log lacks %q", word)
		}
	}
}

// TestSocketsKept has a program in a kept sandbox be refused at once.
func TestSocketsKept(t *testing.T) {
	s := served(t, "exit 3")
	s.Keep = caisson.Duration(patience)
	k := start(t, s)
	k.wait()
	e := k.exec(&isolate.Program{Args: []string{s.Program.Args[0], "-c", "exec 3<>/dev/tcp/127.64.0.1/80"}})
	if said := readAll(t, e.Stderr()); !strings.Contains(said, "refused") {
		t.Errorf("a program in the kept sandbox says %q, want that its connection is refused", said)
	}
	k.end(e)
}

// TestManySockets has as many as there can be, all at once and again.
func TestManySockets(t *testing.T) {
	s := served(t, "exit")
	s.Box.Sockets = nil
	for i := range isolate.MaxSockets {
		s.Box.Sockets = append(s.Box.Sockets, isolate.Socket{IP: []byte{127, 64, 0, 1}, Port: 1000 + i})
	}
	k := launch(t, s)
	for range 3 {
		for i, l := range listeners(t, k, k.Client) {
			if at := l.Addr().(*net.TCPAddr); at.Port != 1000+i {
				t.Errorf("socket %d is at port %d", i, at.Port)
			}
		}
	}
}

func TestSocketsNone(t *testing.T) {
	k := launch(t, spec(t, "exit"))
	if files, err := k.Sockets(k.ctx()); err != nil || len(files) != 0 {
		t.Errorf("Sockets = %v, %v, want none", files, err)
	}
}
