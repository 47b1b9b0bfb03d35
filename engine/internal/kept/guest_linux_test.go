package kept_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/agent"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

const (
	// agentVariable has this test program be a guest's agent.
	agentVariable = "CAISSON_TEST_KEPT_AGENT"
	guestKind     = "guest"
	// waitTime is more than anything here takes.
	waitTime = time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(agentVariable) != "" {
		os.Exit(agent.Main(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], map[string]server.Opener{guestKind: openGuest}))
	}
	os.Exit(m.Run())
}

// A guestBox is a machine without one: its agent is a process of this host, whose
// files are the host's. Its program is started beside it.
type guestBox struct {
	*isolate.Box
	client  *guest.Client
	agent   *exec.Cmd
	carrier *carry.Carrier
	owner   guest.Owner

	mu   sync.Mutex
	proc *isolate.Proc
}

// A guestData is what the box is told.
type guestData struct {
	Owner guest.Owner `json:"owner"`
	// Dir is where it writes the address of its socket, and the agent's pid.
	Dir string `json:"dir"`
}

func openGuest(data json.RawMessage, _ bool) (_ server.Box, err error) {
	var told guestData
	if err := json.Unmarshal(data, &told); err != nil {
		return nil, err
	}
	b := &guestBox{owner: told.Owner}
	if b.Box, err = isolate.Start(&isolate.Spec{ID: "test", None: true}); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "agent")
	b.agent = exec.Command("/proc/self/exe", "3")
	b.agent.Env = []string{agentVariable + "=1"}
	b.agent.ExtraFiles = []*os.File{theirs}
	if err := b.agent.Start(); err != nil {
		return nil, err
	}
	theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	ours.Close()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	if b.client, err = guest.Dial(ctx, conn, nil); err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"tcp": tcp.Addr().String(), "udp": udp.LocalAddr().String(), "pid": fmt.Sprint(b.agent.Process.Pid),
	} {
		if err := os.WriteFile(filepath.Join(told.Dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	b.carrier, err = carry.New([]carry.Source{{Listener: tcp}, {Packets: udp}})
	return b, err
}

// Do implements server.Doer.
func (b *guestBox) Do(op string, _ json.RawMessage) (json.RawMessage, []*os.File, error) {
	if op != kept.FilesOp {
		return nil, nil, caisson.ErrUnsupported
	}
	if b.client.Err() != nil {
		return nil, nil, &caisson.Error{Item: "machine", Kind: caisson.ErrEnded, Err: errors.New("the guest has switched itself off")}
	}
	f, err := b.client.Share()
	if err != nil {
		return nil, nil, err
	}
	owner, err := json.Marshal(b.owner)
	return owner, []*os.File{f}, err
}

// Spawn implements server.Box.
func (b *guestBox) Spawn(p *isolate.Program, stdin, stdout, stderr *os.File) (*isolate.Proc, error) {
	proc, err := b.Box.Spawn(p, stdin, stdout, stderr)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proc = proc
	return proc, err
}

// Kill implements server.Box. The agent is no program.
func (b *guestBox) Kill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc != nil {
		_ = b.proc.Signal(int(syscall.SIGKILL))
	}
	return nil
}

// Root implements server.Box.
func (b *guestBox) Root() (*os.File, error) { return nil, caisson.ErrUnsupported }

// Sockets implements server.Gatekeeper.
func (b *guestBox) Sockets() ([]int, error) { return b.carrier.Sockets() }

// Shut implements server.Gatekeeper.
func (b *guestBox) Shut() { b.carrier.Shut() }

// Close implements server.Box.
func (b *guestBox) Close() error {
	b.carrier.Close()
	b.client.Close()
	b.agent.Wait()
	return b.Box.Close()
}

// A machine is a sandbox in a test.
type machine struct {
	engine.Sandbox
	t     *testing.T
	boxes *kept.Sandboxes
	spec  *engine.Spec
	dir   string // what the guest may write to, and guestData.Dir
}

// sandboxes returns those of an engine whose sandboxes are machines.
func sandboxes(t *testing.T, runtime string) *kept.Sandboxes {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := kept.New(&kept.Options{
		Engine: "test", Groups: "caissonkepttest", Installation: "0", Runtime: runtime,
		Keeper: keeper.Command{self, keeper.Subcommand}, Guests: true,
	})
	t.Cleanup(func() { b.Close() })
	return b
}

// newMachine creates a sandbox whose program runs until a file named "end" appears.
func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "caisson-kept-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, boxes: sandboxes(t, filepath.Join(t.TempDir(), "run")), dir: dir}
	m.spec = &engine.Spec{
		ID: "sandbox", Dir: t.TempDir(),
		Gateway: &engine.Gateway{Sockets: []engine.Socket{
			{Network: "tcp", Address: "127.64.0.1:80"}, {Network: "udp", Address: "127.64.0.1:53"},
		}},
	}
	data, err := json.Marshal(&guestData{Dir: dir, Owner: m.owner()})
	if err != nil {
		t.Fatal(err)
	}
	m.Sandbox, err = m.boxes.Create(m.ctx(), &kept.Plan{
		Spec: m.spec, Record: kept.Record{Isolation: "machine"}, Shell: "/bin/sh",
		Keeper: func(int) (*keeper.Spec, error) {
			return &keeper.Spec{
				ID: m.spec.ID, Dir: m.spec.Dir, Socket: m.boxes.Socket(m.spec.ID), Log: filepath.Join(m.spec.Dir, "log"),
				Box: &isolate.Spec{ID: m.spec.ID}, Foreign: &keeper.Foreign{Kind: guestKind, Data: data},
				Program: isolate.Program{
					Args: []string{"/bin/sh", "-c", "while [ ! -e end ]; do sleep 0.01; done"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: dir,
				},
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Destroy(m.ctx()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// owner is who the program is said to be.
func (m *machine) owner() guest.Owner {
	if os.Geteuid() == 0 {
		return guest.Owner{UID: 777, GID: 888}
	}
	return guest.Owner{UID: os.Geteuid(), GID: os.Getegid()}
}

func (m *machine) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	m.t.Cleanup(cancel)
	return ctx
}

// told returns what the box has written down.
func (m *machine) told(name string) string {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(data)
}

// inside is a name in the guest.
func (m *machine) inside(name string) string {
	return strings.TrimPrefix(filepath.Join(m.dir, name), "/")
}

// again returns the sandbox as another process has it.
func (m *machine) again() engine.Sandbox {
	m.t.Helper()
	s, err := sandboxes(m.t, filepath.Dir(filepath.Dir(m.boxes.Dir(m.spec.ID)))).Recover(m.ctx(), m.spec.Dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// run starts the program, and end has it end.
func (m *machine) run() engine.Process {
	m.t.Helper()
	p, err := m.Start(m.ctx())
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

func (m *machine) end(p engine.Process) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "end"), nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if exit, err := p.Wait(m.ctx()); err != nil || exit.Code != 0 {
		m.t.Fatalf("exit = %+v, %v", exit, err)
	}
}

// archive returns a tar stream of one file.
func archive(name, text string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644})
	io.WriteString(w, text)
	w.Close()
	return &b
}

// checkFiles puts a file into a sandbox, and has it again in every way.
func (m *machine) checkFiles(s engine.Sandbox, name string) {
	m.t.Helper()
	filer := s.(engine.Filer)
	text := strings.Repeat(name, 50_000)
	if err := filer.Put(m.ctx(), m.dir, archive(name, text)); err != nil {
		m.t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	if is := info.Sys().(*syscall.Stat_t); int(is.Uid) != m.owner().UID || int(is.Gid) != m.owner().GID {
		m.t.Errorf("the file is %d:%d's, want the program's user's", is.Uid, is.Gid)
	}
	files, err := filer.FS(m.ctx())
	if err != nil {
		m.t.Fatal(err)
	}
	if got, err := fs.ReadFile(files, m.inside(name)); string(got) != text || err != nil {
		m.t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := files.Close(); err != nil {
		m.t.Error(err)
	}
	if _, err := files.Stat("."); err == nil {
		m.t.Error("files can be had after Close")
	}
	var stream bytes.Buffer
	if err := filer.Tar(m.ctx(), "/"+m.inside(name), &stream); err != nil {
		m.t.Fatal(err)
	}
	r := tar.NewReader(&stream)
	if h, err := r.Next(); err != nil || h.Name != name || h.Size != int64(len(text)) {
		m.t.Errorf("the archive begins with %+v, %v", h, err)
	}
}

// TestGuestFiles has files before the start, beside the program, after its end, and in
// another process.
func TestGuestFiles(t *testing.T) {
	m := newMachine(t)
	m.checkFiles(m.Sandbox, "before")
	p := m.run()
	m.checkFiles(m.Sandbox, "running")
	m.checkFiles(m.again(), "recovered")
	m.end(p)
	m.checkFiles(m.Sandbox, "ended")
	m.checkFiles(m.again(), "recovered-later")
	if err := m.Destroy(m.ctx()); err != nil {
		t.Fatal(err)
	}
	filer := m.Sandbox.(engine.Filer)
	_, err := filer.FS(m.ctx())
	for what, err := range map[string]error{
		"FS": err, "Tar": filer.Tar(m.ctx(), "/", io.Discard), "Put": filer.Put(m.ctx(), "/tmp", archive("x", "x")),
	} {
		if !errors.Is(err, caisson.ErrAborted) {
			t.Errorf("%s after Destroy = %v, want ErrAborted", what, err)
		}
	}
}

func TestGuestFilesRefused(t *testing.T) {
	m := newMachine(t)
	filer := m.Sandbox.(engine.Filer)
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	for _, test := range []struct {
		what string
		err  error
		want error
	}{
		{"Tar(none)", filer.Tar(m.ctx(), m.inside("none"), io.Discard), caisson.ErrNotFound},
		{"Tar(..)", filer.Tar(m.ctx(), "../etc", io.Discard), caisson.ErrInvalid},
		{"Put(none)", filer.Put(m.ctx(), m.inside("none"), archive("x", "x")), caisson.ErrNotFound},
		{"Put(../x)", filer.Put(m.ctx(), m.inside(""), archive("../x", "x")), caisson.ErrInvalid},
		{"Put that is no archive", filer.Put(m.ctx(), m.inside(""), strings.NewReader(strings.Repeat("x", 5000))), caisson.ErrInvalid},
		{"Tar that was given up", filer.Tar(stopped, "/", io.Discard), context.Canceled},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s = %v, want %v", test.what, test.err, test.want)
		}
	}
	if os.Geteuid() == 0 {
		// The program's user has no rights there.
		if err := filer.Put(m.ctx(), "/root", archive("x", "x")); !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Put(/root) = %v, want ErrDenied", err)
		}
	}
}

// TestGuestGone has the machine end under its keeper.
func TestGuestGone(t *testing.T) {
	m := newMachine(t)
	filer := m.Sandbox.(engine.Filer)
	files, err := filer.FS(m.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	var pid int
	fmt.Sscan(m.told("pid"), &pid)
	syscall.Kill(pid, syscall.SIGKILL)
	for deadline := time.Now().Add(waitTime); !errors.Is(err, caisson.ErrUnavailable) && time.Now().Before(deadline); {
		_, err = files.Stat(".")
	}
	if !errors.Is(err, caisson.ErrUnavailable) {
		t.Errorf("Stat = %v, want ErrUnavailable", err)
	}
	_, err = filer.FS(m.ctx())
	if !errors.Is(err, caisson.ErrAborted) || !strings.Contains(err.Error(), "switched itself off") {
		t.Errorf("FS = %v, want ErrAborted, and why", err)
	}
}

// serveOne answers one connection and one datagram.
func (m *machine) serveOne(s engine.Sandbox) {
	m.t.Helper()
	list, err := s.(engine.Gatekeeper).Sockets(m.ctx())
	if err != nil || len(list) != 2 {
		m.t.Fatalf("Sockets = %v, %v", list, err)
	}
	defer func() {
		for i := range list {
			list[i].Close()
		}
	}()
	if at := list[0].Listener.Addr().String() + " " + list[1].Packets.LocalAddr().String(); at != "127.64.0.1:80 127.64.0.1:53" {
		m.t.Errorf("they are at %s", at)
	}
	conn, err := list[0].Listener.Accept()
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	if conn.LocalAddr().String() != m.told("tcp") {
		m.t.Errorf("a connection to %v says that it leads to %v", m.told("tcp"), conn.LocalAddr())
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		m.t.Error(err)
	}
	buf := make([]byte, 100)
	n, from, err := list[1].Packets.ReadFrom(buf)
	if err == nil {
		_, err = list[1].Packets.WriteTo(bytes.ToUpper(buf[:n]), from)
	}
	if err != nil {
		m.t.Error(err)
	}
}

// TestGuestSockets serves what waits, also in another process, until the program's
// end.
func TestGuestSockets(t *testing.T) {
	m := newMachine(t)
	p := m.run()
	ask := func() (tcp, udp net.Conn) {
		tcp, err := net.Dial("tcp", m.told("tcp"))
		if err != nil {
			t.Fatal(err)
		}
		if udp, err = net.Dial("udp", m.told("udp")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(udp, "question"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{tcp, udp} {
			c.SetDeadline(time.Now().Add(waitTime))
			t.Cleanup(func() { c.Close() })
		}
		return tcp, udp
	}
	for _, serve := range []func(){func() { m.serveOne(m.Sandbox) }, func() { m.serveOne(m.again()) }} {
		tcp, udp := ask()
		serve()
		if said, err := io.ReadAll(tcp); string(said) != "hello" || err != nil {
			t.Errorf("a program is told %q, %v", said, err)
		}
		buf := make([]byte, 100)
		if n, err := udp.Read(buf); string(buf[:n]) != "QUESTION" || err != nil {
			t.Errorf("a program is answered %q, %v", buf[:n], err)
		}
	}
	list, err := m.Sandbox.(engine.Gatekeeper).Sockets(m.ctx())
	if err != nil {
		t.Fatal(err)
	}
	m.end(p)
	if _, err := list[0].Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the program's end = %v, want net.ErrClosed", err)
	}
	for i := range list {
		list[i].Close()
	}
	if _, err := m.Sandbox.(engine.Gatekeeper).Sockets(m.ctx()); !errors.Is(err, caisson.ErrEnded) {
		t.Errorf("Sockets after the program's end = %v, want ErrEnded", err)
	}
}
