package guest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

// freePort is one at which nobody listens, in the next moment at least.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestGateway has programs of this host's network reach a socket of the agent's, which
// is in the same one.
func TestGateway(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	ctx := testContext(t)
	port := freePort(t)
	g, err := c.Listen(ctx, []isolate.Socket{{IP: []byte{127, 0, 0, 1}, Port: port}, {IP: []byte{127, 0, 0, 1}, Port: port, UDP: true}}, false)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		local := r.Context().Value(http.LocalAddrContextKey)
		fmt.Fprintf(w, "%d bytes to %v", len(data), local)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(g.Listener(0)) }()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	client := &http.Client{Timeout: limit, Transport: &http.Transport{}}
	for _, size := range []int{0, 1, 3 << 20} {
		reply, err := client.Post("http://"+address, "", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if want := fmt.Sprintf("%d bytes to %s", size, address); string(text) != want || err != nil {
			t.Errorf("got %q, %v, want %q", text, err, want)
		}
	}
	client.CloseIdleConnections()
	checkPackets(t, g, address)
	if _, err := c.Listen(ctx, []isolate.Socket{{IP: []byte{127, 0, 0, 1}, Port: port}}, false); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("Listen at the same port = %v", err)
	}
	g.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v", err)
	}
	server.Close()
	eventually(t, "nobody listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// checkPackets sends datagrams in both directions.
func checkPackets(t *testing.T, g *guest.Gateway, address string) {
	t.Helper()
	inside, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if _, err := inside.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	packets := g.Packets(1)
	defer packets.Close()
	buf := make([]byte, 100)
	_ = packets.SetDeadline(time.Now().Add(limit))
	n, from, err := packets.ReadFrom(buf)
	if string(buf[:n]) != "question" || err != nil || from.String() != inside.LocalAddr().String() {
		t.Fatalf("got %q from %v, %v", buf[:n], from, err)
	}
	if _, err := packets.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	_ = inside.SetReadDeadline(time.Now().Add(limit))
	if n, err = inside.Read(buf); string(buf[:n]) != "answer" || err != nil {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	_ = packets.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, _, err = packets.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadFrom = %v", err)
	}
}

// TestGatewayHalves closes either direction before the other one.
func TestGatewayHalves(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	port := freePort(t)
	g, err := c.Listen(testContext(t), []isolate.Socket{{IP: []byte{127, 0, 0, 1}, Port: port}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	l := g.Listener(0)
	inside, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	outside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	_, _ = io.WriteString(inside, "to the host")
	_ = inside.(*net.TCPConn).CloseWrite()
	if text, err := io.ReadAll(outside); string(text) != "to the host" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	_, _ = io.WriteString(outside, "to the guest")
	outside.Close()
	if text, err := io.ReadAll(inside); string(text) != "to the guest" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	_ = outside.SetDeadline(time.Now())
	if _, err := outside.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that was closed is read")
	}
}

// TestEverything has every address lead to the host, in a network of its own.
func TestEverything(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	if _, err := exec.LookPath("/bin/busybox"); err != nil {
		t.Skip("there is no busybox")
	}
	checkLeaks(t)
	w := way{"init", initAttr()}
	c := w.start(t)
	ctx := testContext(t)
	if err := c.SetNetwork(ctx, []guest.Interface{{Name: "lo", Addresses: []string{"10.1.2.3/24", "fd00::3/64"}}}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetHostname(ctx, "inside"); err != nil {
		t.Fatal(err)
	}
	g, err := c.Listen(ctx, []isolate.Socket{{Port: 8000}}, true)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for l := g.Listener(0); ; {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, conn.LocalAddr())
			conn.Close()
		}
	}()
	script := "hostname; for a in 1.2.3.4 127.0.0.1 2001:db8::1; do /bin/busybox nc $a 8000 </dev/null; done; /bin/busybox nc 1.2.3.4 8001 </dev/null; echo $?"
	out, _, _, _ := run(t, c, shell(script), "")
	if out != "inside\n1.2.3.4:8000\n127.0.0.1:8000\n[2001:db8::1]:8000\n1\n" {
		t.Errorf("got %q", out)
	}
	g.Close()
}

// TestRoot has a folder become the root of everything, as in a machine.
func TestRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a root of its own needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("there is no busybox")
	}
	checkLeaks(t)
	w := way{"init", initAttr()}
	c := w.start(t)
	ctx := testContext(t)
	dir, _ := openFolder(t)
	write(t, dir, map[string]string{"lower/bin/sh": string(busybox), "lower/a": "below", "upper/x": ""})
	if err := os.Chmod(dir+"/lower/bin/sh", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range []guest.Mount{
		{Type: "tmpfs", Source: "tmpfs", Target: dir + "/upper", Flags: []string{"nosuid"}, Options: "size=1m"},
		{Source: dir + "/lower", Target: dir + "/upper/root", Flags: []string{"bind"}},
		{Source: dir + "/lower", Target: dir + "/upper/root", Flags: []string{"bind", "remount", "ro"}},
	} {
		if err := c.Mount(ctx, &m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/lower/proc", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sys", "dev", "run"} {
		if err := os.Mkdir(dir+"/lower/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetRoot(ctx, dir+"/upper/root"); err != nil {
		t.Fatal(err)
	}
	out, errText, _, _ := run(t, c, shell("read x </a; echo $x $$; [ -e /proc/1 ] && echo proc; (echo y >/new) 2>/dev/null || echo read-only"), "")
	if !strings.HasPrefix(out, "below ") || !strings.HasSuffix(out, "\nproc\nread-only\n") {
		t.Errorf("got %q, %q", out, errText)
	}
	if info, err := c.Info(ctx); err != nil || info.PID != 1 || info.Root != dir+"/upper/root" {
		t.Errorf("Info = %+v, %v", info, err)
	}
	if err := c.SetRoot(ctx, "/"); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("SetRoot after a program = %v", err)
	}
	if err := c.Mount(ctx, &guest.Mount{Type: "no-such-fs", Target: "/run"}); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("Mount = %v", err)
	}
	if err := c.Mount(ctx, &guest.Mount{Type: "ext4", Source: "/dev/none", Target: "/run", Wait: 1}); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Mount of a device that is not there = %v", err)
	}
}

// TestPowerOff ends the first process, and with it all others.
func TestPowerOff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a place of its own needs root")
	}
	checkLeaks(t)
	w := way{"init", initAttr()}
	c := w.start(t)
	proc, err := c.Spawn(testContext(t), shell("exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := c.PowerOff(testContext(t), false); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}

// TestReseed makes a copy another one.
func TestReseed(t *testing.T) {
	host := startAgent(t, nil)
	first := dial(t, lent{host})
	if err := first.Reseed(testContext(t), []byte("random")); err != nil {
		t.Fatal(err)
	}
	lose(t, host, first)
	if second := dial(t, lent{host}); second.Boot() == first.Boot() {
		t.Error("the agent says that it is the same one")
	}
}

// TestNotInit refuses what only a machine's agent may do.
func TestNotInit(t *testing.T) {
	c := dial(t, startAgent(t, nil))
	if err := c.PowerOff(testContext(t), false); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("PowerOff = %v", err)
	}
	if err := c.SetClock(testContext(t), time.Now()); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("SetClock = %v", err)
	}
}
