package carry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/carry"
)

// readerVariable has this test program accept one connection at descriptor 3, say so,
// and wait.
const readerVariable = "CAISSON_TEST_CARRY_READER"

func TestMain(m *testing.M) {
	if os.Getenv(readerVariable) != "" {
		hold()
	}
	os.Exit(m.Run())
}

func hold() {
	l, err := carry.Listener(os.NewFile(3, "end"), &net.TCPAddr{})
	if err == nil {
		_, err = l.Accept()
	}
	fmt.Println("accepted", err)
	select {}
}

// patience is more than anything here takes.
const patience = 30 * time.Second

// eventually waits until something is so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// checkLeaks fails the test if it leaves goroutines or sockets.
func checkLeaks(t *testing.T) {
	t.Helper()
	goroutines, sockets := runtime.NumGoroutine(), countSockets(t)
	t.Cleanup(func() {
		eventually(t, "nothing is left", func() bool {
			return runtime.NumGoroutine() <= goroutines && countSockets(t) <= sockets
		})
	})
}

// countSockets is how many this process has. There are other descriptors that the
// runtime keeps for later.
func countSockets(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start begins to carry; it ends with the test.
func start(t *testing.T, sources ...carry.Source) *carry.Carrier {
	t.Helper()
	c, err := carry.New(sources)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ends returns what the carrier hands out, closed with the test.
func ends(t *testing.T, c *carry.Carrier) (list []*os.File) {
	t.Helper()
	fds, err := c.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		t.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	return list
}

// meant is where connections say that they lead.
var meant = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7).To4(), Port: 443}

// serve returns the first socket as whoever serves it has it.
func serve(t *testing.T, c *carry.Carrier) net.Listener {
	t.Helper()
	l, err := carry.Listener(ends(t, c)[0], meant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// TestConn has a request and its answer, both larger than any buffer, ended by
// half-closes.
func TestConn(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	outside := serve(t, c)
	if outside.Addr() != meant {
		t.Errorf("Addr = %v", outside.Addr())
	}
	program := dial(t, inside)
	text := bytes.Repeat([]byte("request"), 200_000)
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := program.Write(text); err != nil {
			t.Error(err)
		}
		program.CloseWrite()
	})
	conn := accept(t, outside)
	if conn.LocalAddr().String() != inside.Addr().String() || conn.RemoteAddr().String() != program.LocalAddr().String() {
		t.Errorf("it leads from %v to %v, want from %v to %v", conn.RemoteAddr(), conn.LocalAddr(), program.LocalAddr(), inside.Addr())
	}
	if got, err := io.ReadAll(conn); !bytes.Equal(got, text) || err != nil {
		t.Errorf("%d bytes have come out, %v", len(got), err)
	}
	both.Go(func() {
		if _, err := conn.Write(text); err != nil {
			t.Error(err)
		}
		conn.(interface{ CloseWrite() error }).CloseWrite()
	})
	if got, err := io.ReadAll(program); !bytes.Equal(got, text) || err != nil {
		t.Errorf("%d bytes have come back, %v", len(got), err)
	}
	both.Wait()
}

// TestAnswerBeforeEnd has who serves answer and leave while the program still sends.
func TestAnswerBeforeEnd(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	outside := serve(t, start(t, carry.Source{Listener: inside}))
	program := dial(t, inside)
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for {
			if _, err := program.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	conn := accept(t, outside)
	if _, err := conn.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	got := make([]byte, len("answer"))
	if _, err := io.ReadFull(program, got); string(got) != "answer" {
		t.Errorf("the program has read %q, %v", got, err)
	}
	<-sending
}

// TestHangUp tells a quiet program that nobody is there any more.
func TestHangUp(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	outside := serve(t, start(t, carry.Source{Listener: inside}))
	program := dial(t, inside)
	conn := accept(t, outside)
	conn.Close()
	if n, err := program.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read = %d, %v, want the end", n, err)
	}
	eventually(t, "the program can't write", func() bool {
		_, err := program.Write([]byte("x"))
		return err != nil
	})
	// The other way round.
	program = dial(t, inside)
	conn = accept(t, outside)
	program.SetLinger(0)
	program.Close()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read = %d, %v, want the end", n, err)
	}
	eventually(t, "who serves can't write", func() bool {
		_, err := conn.Write([]byte("x"))
		return err != nil
	})
}

func TestDeadline(t *testing.T) {
	inside := listen(t)
	outside := serve(t, start(t, carry.Source{Listener: inside}))
	dial(t, inside)
	conn := accept(t, outside)
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Read = %v, want that the time is up", err)
	}
	conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	for err = nil; err == nil; {
		_, err = conn.Write(make([]byte, 1<<16))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %v, want that the time is up", err)
	}
}

// TestWaiting has whoever comes find those who connected while nobody served.
func TestWaiting(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	first, second := dial(t, inside), dial(t, inside)
	for i, program := range []net.Conn{first, second} {
		if _, err := fmt.Fprintf(program, "%d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	l := serve(t, c)
	one := accept(t, l)
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v", err)
	}
	// What was accepted goes on without the listener.
	two := accept(t, serve(t, c))
	said := ""
	for _, conn := range []net.Conn{one, two} {
		word := make([]byte, 2)
		if _, err := io.ReadFull(conn, word); err != nil {
			t.Fatal(err)
		}
		said += string(word)
	}
	if said != "0\n1\n" {
		t.Errorf("they have said %q", said)
	}
}

// TestKilledReader kills a process that has accepted one connection: the others are
// left to the next.
func TestKilledReader(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	fds, err := c.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	end := os.NewFile(uintptr(fds[0]), "end")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), readerVariable+"=1")
	cmd.ExtraFiles = []*os.File{end}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	lost := dial(t, inside)
	line := make([]byte, 64)
	if n, err := said.Read(line); string(line[:n]) != "accepted <nil>\n" {
		t.Fatalf("the reader says %q, %v", line[:n], err)
	}
	var waiting []net.Conn
	for range 3 {
		waiting = append(waiting, dial(t, inside))
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := lost.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection of the killed one: %v, want its end", err)
	}
	l := serve(t, c)
	for i, program := range waiting {
		conn := accept(t, l)
		if conn.RemoteAddr().String() != program.LocalAddr().String() {
			t.Errorf("connection %d is %v, want %v", i, conn.RemoteAddr(), program.LocalAddr())
		}
	}
}

// TestReaders has several serve at once, some of which come and go.
func TestReaders(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	var serving sync.WaitGroup
	var listeners []net.Listener
	for range 4 {
		l := serve(t, c)
		listeners = append(listeners, l)
		for range 2 {
			serving.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					io.Copy(conn, conn)
					conn.Close()
				}
			})
		}
	}
	var programs sync.WaitGroup
	for n := range 16 {
		programs.Go(func() {
			for i := range 10 {
				conn, err := net.Dial("tcp", inside.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				word := fmt.Sprintf("%d %d", n, i)
				io.WriteString(conn, word)
				conn.(*net.TCPConn).CloseWrite()
				if got, err := io.ReadAll(conn); string(got) != word || err != nil {
					t.Errorf("%q is answered %q, %v", word, got, err)
				}
				conn.Close()
			}
			if n == 0 {
				listeners[0].Close()
			}
		})
	}
	programs.Wait()
	c.Shut()
	serving.Wait()
}

// A supply is a listener with as many connections as anybody wants.
type supply struct {
	mu     sync.Mutex
	taken  int
	left   int
	closed chan struct{}
	once   sync.Once
}

func newSupply(left int) *supply { return &supply{left: left, closed: make(chan struct{})} }

func (s *supply) Accept() (net.Conn, error) {
	s.mu.Lock()
	more := s.left > 0
	if more {
		s.left--
		s.taken++
	}
	s.mu.Unlock()
	if !more {
		<-s.closed
		return nil, net.ErrClosed
	}
	near, far := net.Pipe()
	far.Close()
	return near, nil
}

func (s *supply) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *supply) Addr() net.Addr { return meant }

func (s *supply) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// TestBound bounds what waits, at one socket and at all, though the programs are gone
// by then; whoever serves finds it all.
func TestBound(t *testing.T) {
	checkLeaks(t)
	const sockets, each = 20, 100
	var sources []carry.Source
	var supplies []*supply
	for range sockets {
		s := newSupply(each)
		supplies, sources = append(supplies, s), append(sources, carry.Source{Listener: s})
	}
	c := start(t, sources...)
	total := func() (sum int) {
		for _, s := range supplies {
			sum += s.count()
		}
		return sum
	}
	eventually(t, "many wait", func() bool { return total() >= 500 })
	// Time for those that must not come.
	time.Sleep(50 * time.Millisecond)
	if n := total(); n > 512+sockets {
		t.Errorf("%d connections are carried at once", n)
	}
	for i, s := range supplies {
		if n := s.count(); n > each*2/3 {
			t.Errorf("%d connections are taken from socket %d", n, i)
		}
	}
	var serving sync.WaitGroup
	for _, end := range ends(t, c) {
		l, err := carry.Listener(end, meant)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		serving.Go(func() {
			for range each {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				conn.Close()
			}
		})
	}
	serving.Wait()
}

// TestShut refuses those who wait, tells those who serve, and leaves connections.
func TestShut(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	outside := serve(t, c)
	program := dial(t, inside)
	conn := accept(t, outside)
	idle := serve(t, c)
	waiting := make(chan error)
	go func() {
		_, err := idle.Accept()
		waiting <- err
	}()
	c.Shut()
	c.Shut()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want net.ErrClosed", err)
	}
	if _, err := outside.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept afterwards = %v, want net.ErrClosed", err)
	}
	if _, err := net.Dial("tcp", inside.Addr().String()); err == nil {
		t.Error("a program can connect")
	}
	if fds, err := c.Sockets(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Sockets = %v, %v, want net.ErrClosed", fds, err)
	}
	if _, err := io.WriteString(conn, "still"); err != nil {
		t.Error(err)
	}
	word := make([]byte, len("still"))
	if _, err := io.ReadFull(program, word); string(word) != "still" {
		t.Errorf("the program has read %q, %v", word, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := program.Read(word); err == nil {
		t.Error("a connection outlives Close")
	}
	if _, err := conn.Read(word); err == nil {
		t.Error("a connection outlives Close")
	}
}

// TestShutWaiting refuses who waits.
func TestShutWaiting(t *testing.T) {
	checkLeaks(t)
	inside := listen(t)
	c := start(t, carry.Source{Listener: inside})
	var programs []net.Conn
	for range 60 {
		programs = append(programs, dial(t, inside))
	}
	c.Shut()
	for i, program := range programs {
		if _, err := program.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestPackets has datagrams and their answers.
func TestPackets(t *testing.T) {
	checkLeaks(t)
	source, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := source.LocalAddr()
	c := start(t, carry.Source{Packets: source})
	open := func() net.PacketConn {
		p, err := carry.Packets(ends(t, c)[0], &net.UDPAddr{Port: 53})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	program, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	program.SetDeadline(time.Now().Add(patience))
	// It waits until somebody comes.
	if _, err := io.WriteString(program, "question"); err != nil {
		t.Fatal(err)
	}
	p := open()
	if p.LocalAddr().String() != ":53" {
		t.Errorf("LocalAddr = %v", p.LocalAddr())
	}
	buf := make([]byte, 100)
	n, from, err := p.ReadFrom(buf)
	if string(buf[:n]) != "question" || err != nil || from.String() != program.LocalAddr().String() {
		t.Fatalf("ReadFrom = %q from %v, %v", buf[:n], from, err)
	}
	for _, answer := range []string{"answer", "", strings.Repeat("x", carry.MaxDatagram)} {
		if _, err := p.WriteTo([]byte(answer), from); err != nil {
			t.Fatal(err)
		}
		large := make([]byte, 1<<16)
		if n, err := program.Read(large); string(large[:n]) != answer || err != nil {
			t.Errorf("an answer of %d bytes has %d, %v", len(answer), n, err)
		}
	}
	if _, err := p.WriteTo(make([]byte, carry.MaxDatagram+1), from); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a datagram that is too large: %v", err)
	}
	p.SetReadDeadline(time.Now().Add(time.Millisecond))
	var timeout net.Error
	if _, _, err := p.ReadFrom(buf); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("ReadFrom = %v, want that the time is up", err)
	}
	p.SetReadDeadline(time.Time{})
	// Far more than anybody keeps: some are lost, and nothing is held up.
	for range 2000 {
		if _, err := program.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n, _, err := p.ReadFrom(buf[:10]); n != 10 || err != nil {
		t.Errorf("a datagram that is cut off has %d bytes, %v", n, err)
	}
	other := open()
	if n, _, err := other.ReadFrom(make([]byte, 2000)); n != 1000 || err != nil {
		t.Errorf("another one reads %d bytes, %v", n, err)
	}
	c.Shut()
	for err = nil; err == nil; {
		_, _, err = p.ReadFrom(buf)
	}
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom after Shut = %v, want net.ErrClosed", err)
	}
	if _, err := p.WriteTo(nil, from); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteTo after Shut = %v, want net.ErrClosed", err)
	}
}

// TestForeign passes over messages that are none, or of another version, with what
// came along.
func TestForeign(t *testing.T) {
	checkLeaks(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := os.NewFile(uintptr(fds[1]), "end")
	defer end.Close()
	l, err := carry.Listener(end, meant)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	good := append([]byte{1}, make([]byte, 36)...)
	other := append([]byte{2}, make([]byte, 36)...)
	for _, m := range []struct {
		data []byte
		fds  []int
	}{
		{[]byte("x"), nil},
		{good, nil},
		{good[:36], []int{int(null.Fd())}},
		{other, []int{int(null.Fd())}},
		{append(good[:37:37], 0), []int{int(null.Fd())}},
		{good, []int{int(null.Fd())}},
	} {
		var oob []byte
		if m.fds != nil {
			oob = unix.UnixRights(m.fds...)
		}
		if err := unix.Sendmsg(fds[0], m.data, oob, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	// The last one has a descriptor that is no connection.
	if conn, err := l.Accept(); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, %v", conn, err)
	}
	unix.Close(fds[0])
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want net.ErrClosed", err)
	}
}
