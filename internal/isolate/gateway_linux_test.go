package isolate_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// The sockets of most tests here: at a port that only who has rights over the
// network can open, for datagrams, and at every address.
var (
	webSocket  = isolate.Socket{IP: []byte{127, 64, 0, 1}, Port: 80}
	nameSocket = isolate.Socket{UDP: true, IP: []byte{127, 64, 0, 1}, Port: 53}
	sixSocket  = isolate.Socket{IP: netip.IPv6Loopback().AsSlice(), Port: 81}
	allSocket  = isolate.Socket{Port: 443}
)

// helperReach connects to each of NETWORK IP PORT, says something, and prints
// what it hears, or what is wrong.
func helperReach(args []string) error {
	for ; len(args) >= 3; args = args[3:] {
		said, err := reach(args[0], args[1], args[2])
		if err != nil {
			said = unix.ErrnoName(errnoOf(err))
		}
		fmt.Printf("%s %s %s: %s\n", args[0], args[1], args[2], said)
	}
	return nil
}

func errnoOf(err error) (errno syscall.Errno) {
	errors.As(err, &errno)
	return errno
}

func reach(network, ip, port string) (string, error) {
	kind := unix.SOCK_STREAM
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	addr := netip.MustParseAddr(ip)
	family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.As16(), Port: number})
	if addr.Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: number}
	}
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, at); err != nil {
		return "", err
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := unix.Read(fd, buf)
	return string(buf[:max(n, 0)]), err
}

// await waits until a descriptor has something to say.
func await(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0:
			return os.ErrDeadlineExceeded
		}
		return err
	}
}

// answerOne takes one connection of a socket and answers with word and the
// address that it was meant for.
func answerOne(fd int, word string) error {
	if err := await(fd); err != nil {
		return err
	}
	conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	if _, err := unix.Read(conn, make([]byte, 100)); err != nil {
		return err
	}
	at, err := unix.Getsockname(conn)
	if err != nil {
		return err
	}
	_, err = unix.Write(conn, []byte(word+" "+textOf(at)))
	return err
}

func textOf(at unix.Sockaddr) string {
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr).Unmap(), uint16(at.Port)).String()
	}
	return fmt.Sprintf("%T", at)
}

// echoOne answers one datagram.
func echoOne(fd int) error {
	if err := await(fd); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, buf[:n], 0, from)
}

// socketsOf returns the box's sockets, which are closed with the test.
func socketsOf(t *testing.T, box *isolate.Box, want int) []int {
	t.Helper()
	fds, err := box.Sockets()
	if err != nil || len(fds) != want {
		t.Fatalf("Sockets = %v, %v, want %d", fds, err, want)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
	return fds
}

// check compares what the helper prints line by line.
func check(t *testing.T, out string, want ...string) {
	t.Helper()
	if got := strings.TrimSpace(out); got != strings.Join(want, "\n") {
		t.Errorf("the program says\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestSockets(t *testing.T) {
	watch(t)
	spec := baseSpec(t)
	spec.Sockets = []isolate.Socket{webSocket, nameSocket, sixSocket, allSocket}
	box := begin(t, spec)
	fds := socketsOf(t, box, 4)

	// Who connects before anybody serves waits.
	r := spawn(t, box, "reach", "tcp", "127.64.0.1", "80", "udp", "127.64.0.1", "53", "tcp", "::1", "81",
		"tcp", "127.0.0.1", "443", "tcp", "::1", "443", "tcp", "127.64.0.2", "80", "udp", "127.64.0.2", "53")
	again := socketsOf(t, box, 4)
	for i, err := range []error{
		answerOne(fds[0], "web"), echoOne(again[1]), answerOne(fds[2], "six"), answerOne(again[3], "all"), answerOne(fds[3], "all"),
	} {
		if err != nil {
			t.Errorf("answer %d: %v", i, err)
		}
	}
	check(t, r.output(t),
		"tcp 127.64.0.1 80: web 127.64.0.1:80", "udp 127.64.0.1 53: hello", "tcp ::1 81: six [::1]:81",
		"tcp 127.0.0.1 443: all 127.0.0.1:443", "tcp ::1 443: all [::1]:443",
		"tcp 127.64.0.2 80: ECONNREFUSED", "udp 127.64.0.2 53: ECONNREFUSED")

	// Without routes there is no way anywhere else.
	check(t, spawn(t, box, "reach", "tcp", "192.0.2.1", "443", "tcp", "2001:db8::1", "443").output(t),
		"tcp 192.0.2.1 443: ENETUNREACH", "tcp 2001:db8::1 443: ENETUNREACH")
	if _, err := reach("tcp", "127.64.0.1", "80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the host reaches the socket: %v", err)
	}

	box.Shut()
	box.Shut()
	if more, err := box.Sockets(); err != nil || len(more) != 0 {
		t.Errorf("Sockets after Shut = %v, %v, want none", more, err)
	}
	check(t, spawn(t, box, "reach", "tcp", "127.64.0.1", "80", "tcp", "127.0.0.1", "443").output(t),
		"tcp 127.64.0.1 80: ECONNREFUSED", "tcp 127.0.0.1 443: ECONNREFUSED")
	if _, _, err := unix.Accept4(fds[0], 0); err != unix.EINVAL {
		t.Errorf("Accept after Shut = %v, want EINVAL", err)
	}
}

func TestEverything(t *testing.T) {
	watch(t)
	spec := baseSpec(t)
	spec.Sockets, spec.Everything = []isolate.Socket{allSocket, {UDP: true, Port: 53}}, true
	box := begin(t, spec)
	fds := socketsOf(t, box, 2)
	places := []string{"192.0.2.1", "10.0.0.7", "169.254.169.254", "127.9.9.9", "2001:db8::1", "fd00::1", "::ffff:192.0.2.2"}
	var args, want []string
	for _, ip := range places {
		args = append(args, "tcp", ip, "443")
		meant := netip.AddrPortFrom(netip.MustParseAddr(ip).Unmap(), 443)
		want = append(want, fmt.Sprintf("tcp %s 443: all %s", ip, meant))
	}
	for _, ip := range places {
		args = append(args, "tcp", ip, "444")
		want = append(want, fmt.Sprintf("tcp %s 444: ECONNREFUSED", ip))
	}
	args = append(args, "udp", "192.0.2.1", "54", "udp", "2001:db8::1", "54")
	want = append(want, "udp 192.0.2.1 54: ECONNREFUSED", "udp 2001:db8::1 54: ECONNREFUSED")
	r := spawn(t, box, append([]string{"reach"}, args...)...)
	for range places {
		if err := answerOne(fds[0], "all"); err != nil {
			t.Error(err)
		}
	}
	check(t, r.output(t), want...)
}

// TestJoinedSockets has two sandboxes on one network, which has a device besides
// the loopback one.
func TestJoinedSockets(t *testing.T) {
	path := namedNetwork(t)
	name := strings.TrimPrefix(path, "/run/netns/")
	must := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	must("ip", "-n", name, "addr", "add", "198.51.100.2/30", "dev", "inside0")
	must("ip", "-n", name, "link", "set", "inside0", "up")
	// The other end is somebody else's, on the same wire.
	other := name + "-lan"
	must("ip", "netns", "add", other)
	t.Cleanup(func() { must("ip", "netns", "del", other) })
	must("ip", "-n", name, "link", "set", "inside1", "netns", other)
	must("ip", "-n", other, "addr", "add", "198.51.100.1/30", "dev", "inside1")
	must("ip", "-n", other, "link", "set", "inside1", "up")

	watch(t)
	spec := baseSpec(t)
	spec.NetNS, spec.Sockets = path, []isolate.Socket{webSocket, allSocket}
	first := begin(t, spec)
	more := baseSpec(t)
	more.ID, more.NetNS, more.Sockets = "isolate-test-2", path, spec.Sockets
	for i := range more.UIDs {
		more.UIDs[i].Host += 10
		more.GIDs[i].Host += 10
	}
	second := begin(t, more)
	fds := socketsOf(t, second, 2)

	// Some wait at either's socket, and none is lost with the first one's.
	waiting := 8
	if _, err := os.Stat("/proc/sys/net/ipv4/tcp_migrate_req"); err != nil {
		waiting = 0 // the kernel is older than that
	}
	var calls []*run
	for range waiting {
		calls = append(calls, spawn(t, first, "reach", "tcp", "127.64.0.1", "80"))
	}
	if !poll(func() bool {
		return strings.Count(spawn(t, first, "cat", "/proc/net/tcp").output(t), ": 0100407F:0050 0100007F:") == waiting
	}) {
		t.Fatal("nobody waits")
	}
	first.Shut()
	for range calls {
		if err := answerOne(fds[0], "second"); err != nil {
			t.Error(err)
		}
	}
	for _, r := range calls {
		check(t, r.output(t), "tcp 127.64.0.1 80: second 127.64.0.1:80")
	}

	r := spawn(t, first, "reach", "tcp", "127.64.0.1", "80", "tcp", "::1", "443", "tcp", "198.51.100.2", "443")
	for i, word := range []string{"web", "all"} {
		if err := answerOne(fds[i], word); err != nil {
			t.Error(err)
		}
	}
	check(t, r.output(t), "tcp 127.64.0.1 80: web 127.64.0.1:80", "tcp ::1 443: all [::1]:443", "tcp 198.51.100.2 443: ECONNREFUSED")

	third := baseSpec(t)
	third.ID, third.NetNS = "isolate-test-3", "/run/netns/"+other
	for i := range third.UIDs {
		third.UIDs[i].Host += 20
		third.GIDs[i].Host += 20
	}
	check(t, spawn(t, begin(t, third), "reach", "tcp", "198.51.100.2", "443").output(t), "tcp 198.51.100.2 443: ECONNREFUSED")
}

func TestSocketsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*isolate.Spec)
		kind   caisson.Kind
	}{
		"HostNetwork": {func(s *isolate.Spec) { s.HostNetwork, s.Everything = true, true }, caisson.ErrUnsupported},
		"None":        {func(s *isolate.Spec) { s.None, s.User, s.Sockets = true, nil, []isolate.Socket{webSocket} }, caisson.ErrUnsupported},
		"Many":        {func(s *isolate.Spec) { s.Sockets = make([]isolate.Socket, isolate.MaxSockets+1) }, caisson.ErrInvalid},
		"NoPort":      {func(s *isolate.Spec) { s.Sockets = []isolate.Socket{{}} }, caisson.ErrInvalid},
		"NoAddress":   {func(s *isolate.Spec) { s.Sockets = []isolate.Socket{{IP: []byte{1}, Port: 1}} }, caisson.ErrInvalid},
		"Twice":       {func(s *isolate.Spec) { s.Sockets = []isolate.Socket{webSocket, webSocket} }, caisson.ErrInvalid},
		"Elsewhere":   {func(s *isolate.Spec) { s.Sockets = []isolate.Socket{{IP: []byte{192, 0, 2, 1}, Port: 80}} }, caisson.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			watch(t)
			spec := baseSpec(t)
			test.change(spec)
			box, err := isolate.Start(spec)
			if box != nil {
				box.Close()
			}
			if !errors.Is(err, test.kind) {
				t.Errorf("Start = %v, want kind %v", err, test.kind)
			}
		})
	}
}
