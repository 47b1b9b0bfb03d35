//go:build linux

package qemu

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

// testBorder holds what crosses a machine's border besides its programs: files, and
// what connects to the sockets of its gateway.
func testBorder(t *testing.T, p *parts) {
	s := p.spec(t)
	s.Guest.Files = append(s.Guest.Files, guestFile{Path: "/home/mine", Dir: true, Mode: 0o700, Own: true})
	s.Guest.Gateway = &guestGateway{Everything: true, Sockets: []isolate.Socket{
		{IP: []byte{127, 64, 0, 1}, Port: 80}, {IP: []byte{127, 64, 0, 1}, Port: 53, UDP: true}, {Port: 443},
	}}
	b := open(t, s)
	t.Run("Files", func(t *testing.T) { testFiles(t, b) })
	t.Run("Connections", func(t *testing.T) { testConnections(t, b) })
	t.Run("Datagrams", func(t *testing.T) { testDatagrams(t, b) })
	t.Run("Shut", func(t *testing.T) { testShut(t, b) })
}

// testFiles holds that another process sees to the guest's files, as the program's
// user.
func testFiles(t *testing.T, b *box) {
	data, files, err := b.Do(kept.FilesOp, nil)
	if err != nil || len(files) != 1 {
		t.Fatalf("Do(files) = %v, %v", files, err)
	}
	var owner guest.Owner
	if err := json.Unmarshal(data, &owner); err != nil || owner != (guest.Owner{UID: 1000, GID: 1000}) {
		t.Errorf("the owner is %s, %v", data, err)
	}
	conn, err := net.FileConn(files[0])
	files[0].Close()
	if err != nil {
		t.Fatal(err)
	}
	client, err := guest.Dial(t.Context(), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	tree, err := client.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got, err := fs.ReadFile(tree, "home/task/file"); string(got) != "of the image\n" || err != nil {
		t.Errorf("the file says %q, %v", got, err)
	}
	if got := output(t, b, "echo changed > /home/mine/here; echo done"); got != "done\n" {
		t.Fatal(got)
	}
	if got, err := fs.ReadFile(tree, "home/mine/here"); string(got) != "changed\n" || err != nil {
		t.Errorf("the program's file says %q, %v", got, err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	text := strings.Repeat("0123456789", 100_000)
	if err := w.WriteHeader(&tar.Header{Name: "in", Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := client.Put(t.Context(), "home/mine", bytes.NewReader(archive.Bytes()), &owner); err != nil {
		t.Fatal(err)
	}
	// The file is for nobody but its owner.
	if got := output(t, b, "busybox wc -c < /home/mine/in"); got != "1000000\n" {
		t.Errorf("the program counts %q", got)
	}
	if err := client.Put(t.Context(), "home/task", bytes.NewReader(archive.Bytes()), &owner); !errors.Is(err, caisson.ErrDenied) {
		t.Errorf("Put where the user may not write = %v, want ErrDenied", err)
	}
	var back bytes.Buffer
	if err := client.Tar(t.Context(), "home/mine", &back); err != nil || !bytes.Contains(back.Bytes(), []byte(text)) {
		t.Errorf("Tar gives %d bytes, %v", back.Len(), err)
	}
}

// attendant opens the gateway's sockets as a process does that serves them.
func attendant(t *testing.T, b *box) (web, all net.Listener, dns net.PacketConn) {
	t.Helper()
	fds, err := b.Sockets()
	if err != nil || len(fds) != 3 {
		t.Fatalf("Sockets() = %v, %v", fds, err)
	}
	var ends []*os.File
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		defer f.Close()
		ends = append(ends, f)
	}
	if web, err = carry.Listener(ends[0], &net.TCPAddr{}); err == nil {
		dns, err = carry.Packets(ends[1], &net.UDPAddr{})
	}
	if err == nil {
		all, err = carry.Listener(ends[2], &net.TCPAddr{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		web.Close()
		all.Close()
		dns.Close()
	})
	return web, all, dns
}

// answer takes one connection to an address, reads what it has to say and answers.
func answer(t *testing.T, l net.Listener, address, word string) {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testLimit))
	if got := conn.LocalAddr().String(); got != address {
		t.Errorf("a connection to %s says that it leads to %s", address, got)
	}
	said, err := io.ReadAll(conn)
	if err == nil {
		_, err = io.WriteString(conn, word+" "+string(said))
	}
	if err != nil {
		t.Error(err)
	}
}

// testConnections holds that connections wait until somebody serves, and arrive
// wherever they were meant for.
func testConnections(t *testing.T, b *box) {
	first := shell(t, b, "echo one | busybox nc 127.64.0.1 80")
	second := shell(t, b, "echo two | busybox nc 127.64.0.1 80")
	web, all, _ := attendant(t, b)
	answer(t, web, "127.64.0.1:80", "first:")
	web.Close()
	all.Close()
	web, all, _ = attendant(t, b)
	answer(t, web, "127.64.0.1:80", "second:")
	heard := prints(t, first.stdout) + prints(t, second.stdout)
	if !strings.Contains(heard, "first: ") || !strings.Contains(heard, "second: ") || !strings.Contains(heard, "one\n") || !strings.Contains(heard, "two\n") {
		t.Errorf("programs are told %q", heard)
	}
	for _, address := range []string{"192.0.2.7", "2001:db8::7"} {
		r := shell(t, b, "echo any | busybox nc "+address+" 443")
		answer(t, all, net.JoinHostPort(address, "443"), "all:")
		if got := prints(t, r.stdout); got != "all: any\n" {
			t.Errorf("a program is told %q by %s", got, address)
		}
	}
}

// testDatagrams holds that a question is answered.
func testDatagrams(t *testing.T, b *box) {
	r := shell(t, b, "busybox nslookup -type=a some.name 127.64.0.1")
	_, _, dns := attendant(t, b)
	dns.SetDeadline(time.Now().Add(testLimit))
	buf := make([]byte, 512)
	n, from, err := dns.ReadFrom(buf)
	if err != nil || n < 12 {
		t.Fatalf("ReadFrom = %d, %v", n, err)
	}
	// The question with an address for the name that it begins with.
	reply := append(bytes.Clone(buf[:2]), 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0)
	reply = append(reply, buf[12:n]...)
	reply = append(reply, 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 99)
	if _, err := dns.WriteTo(reply, from); err != nil {
		t.Fatal(err)
	}
	if got := prints(t, r.stdout); !strings.Contains(got, "192.0.2.99") {
		t.Errorf("a program is told %q", got)
	}
}

// testShut holds that nobody waits where nobody will serve any more.
func testShut(t *testing.T, b *box) {
	web, _, _ := attendant(t, b)
	b.Shut()
	if _, err := web.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v, want net.ErrClosed", err)
	}
	if code, _ := shell(t, b, "busybox nc 127.64.0.1 80").ends(t); code == 0 {
		t.Error("a program can connect")
	}
	if fds, err := b.Sockets(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Sockets() = %v, %v, want net.ErrClosed", fds, err)
	}
	if got := output(t, b, "echo more"); got != "more\n" {
		t.Errorf("a program prints %q", got)
	}
}
