package gelf_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/gelf"
)

// TestListenIn is reached from inside of a namespace without any network, and
// from nowhere else.
func TestListenIn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("entering another network namespace needs root")
	}
	shell := exec.Command("sh", "-c", "busybox ip link set lo up && echo up; read port; exec busybox nc -w 5 127.0.0.1 $port")
	shell.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer shell.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the namespace has no loopback device: %q, %v", line, err)
	}
	ns := "/proc/" + strconv.Itoa(shell.Process.Pid) + "/ns/net"
	s := &sink{}
	l, err := gelf.ListenIn(ns, "127.0.0.1:0", gelf.Options{Message: s.add})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port := splitPort(t, l)
	if _, err := in.Write([]byte(port + "\n" + message("from inside") + "\x00")); err != nil {
		t.Fatal(err)
	}
	eventually(t, s, "from inside")
	if c, err := dialPort(port); err == nil {
		c.Close()
		t.Error("the listener is reached from outside of its namespace")
	}
}

func TestListenInErr(t *testing.T) {
	if _, err := gelf.ListenIn("/proc/self/ns/none", "127.0.0.1:0", gelf.Options{}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("got %v, want %v", err, caisson.ErrNotFound)
	}
}
