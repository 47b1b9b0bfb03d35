//go:build unix

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/server"
)

// Kind is the engine's keeper.Foreign.Kind, whose boxes OpenBox makes.
const Kind = Name

const (
	// readyTime is how long a container's first process may take to answer.
	readyTime = 30 * time.Second
	// meetStep is how often it is looked whether the container runs meanwhile.
	meetStep = 500 * time.Millisecond
	// drainTime is how long the rest of the output is waited for where the
	// daemon is gone for a while.
	drainTime = 2 * time.Minute
	// quietStep is how often it is looked whether something of the program is
	// left, once it has ended itself.
	quietStep = 20 * time.Millisecond
)

// insideDir is the folder inside that has the first process's program and its
// socket.
const (
	insideDir   = "/.caisson"
	initName    = "init"
	socketName  = "socket"
	secretsDir  = "/run/secrets"
	onceDir     = "/run/once"
	markTemplet = "\x00caisson-end-%s\x00\n"
)

// A boxSpec is what the keeper needs to make a container or to find it again.
type boxSpec struct {
	Host string `json:"host"` // the daemon
	Name string `json:"name"` // of the container
	// Dir is the folder on this host that is insideDir.
	Dir  string `json:"dir"`
	Mark string `json:"mark"` // what ends the output, as a word nobody can guess

	Config     *container.Config         `json:"config"`
	HostConfig *container.HostConfig     `json:"host_config"`
	Networking *network.NetworkingConfig `json:"networking,omitempty"`
	// More are networks to attach once it was made, by name.
	More []attachment `json:"more,omitempty"`
	// Gateway has sockets in the container's network.
	Gateway *gateway `json:"gateway,omitempty"`
	// Neighbours are those on a shared network with an allow-list.
	Neighbours *neighbours `json:"neighbours,omitempty"`

	UID     int          `json:"uid"` // of the program
	GID     int          `json:"gid"`
	Files   int64        `json:"files,omitempty"`
	Seccomp bool         `json:"seccomp,omitempty"`
	Secrets []secretFile `json:"secrets,omitempty"`
	// Modes are those of folders in memory: a runtime gives them the mode of the
	// image's folder that they hide.
	Modes map[string]uint32 `json:"modes,omitempty"`
	// Lent are folders of this host whose files are the program's user's until
	// nothing of the program runs, and then Owner's.
	Lent  []string     `json:"lent,omitempty"`
	Owner engine.Owner `json:"owner"`
}

// An attachment is a network that a container is attached to.
type attachment struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
}

// A secretFile is a file in secretsDir.
type secretFile struct {
	Name  string `json:"name"`
	Value []byte `json:"value,omitempty"`
	Link  string `json:"link,omitempty"` // it is a link to there
}

// A box is a container whose first process is Caisson's own, as the keeper has
// it. The container belongs to the daemon: it outlives the keeper.
type box struct {
	*isolate.Guest
	spec     *boxSpec
	daemon   *daemon
	attached io.ReadCloser // until the copier has it

	mu       sync.Mutex
	copier   *copier
	returned bool // the folders that were lent are their owner's again
	halted   bool // what there is runs no more, and is not to be waited for
	closed   bool
}

var (
	_ server.Resident   = (*box)(nil)
	_ server.Halter     = (*box)(nil)
	_ server.Gatekeeper = (*box)(nil)
)

// OpenBox makes a container, or finds one, for the keeper. It is a
// server.Opener.
func OpenBox(data json.RawMessage, adopt bool) (server.Box, error) {
	spec := new(boxSpec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, err
	}
	d, err := connect(spec.Host)
	if err != nil {
		return nil, err
	}
	b := &box{spec: spec, daemon: d}
	if adopt {
		err = b.find()
	} else {
		err = b.make()
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return b, nil
}

// find connects to the first process of a container that runs already.
func (b *box) find() (err error) {
	if b.Guest, err = isolate.OpenGuest(b.guest(time.Second)); err != nil {
		return err
	}
	if err = b.findGateway(); err != nil {
		b.Guest.Close()
	}
	return err
}

func (b *box) guest(patience time.Duration) *isolate.GuestSpec {
	return &isolate.GuestSpec{
		Socket: filepath.Join(b.spec.Dir, socketName), Patience: patience, Files: b.spec.Files, Seccomp: b.spec.Seccomp,
	}
}

// make makes the container, and leaves nothing if it can't.
func (b *box) make() (err error) {
	ctx := context.Background()
	_, err = call(ctx, "container", func(ctx context.Context) (client.ContainerCreateResult, error) {
		return b.daemon.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: b.spec.Name, Config: b.spec.Config, HostConfig: b.spec.HostConfig, NetworkingConfig: b.spec.Networking,
		})
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if b.attached != nil {
			b.attached.Close()
		}
		if b.Guest != nil {
			b.Guest.Close()
		}
		if undoErr := b.remove(); undoErr != nil {
			err = errors.Join(err, undoErr)
		}
	}()
	for _, n := range b.spec.More {
		if err := b.attachTo(ctx, n); err != nil {
			return err
		}
	}
	// Attached before it starts, so that nothing is missed.
	if b.attached, err = b.daemon.attach(ctx, b.spec.Name); err != nil {
		// Podman prepares all for the start here, and keeps why it could not.
		if startErr := b.start(ctx); startErr != nil {
			return startErr
		}
		return err
	}
	if err = b.start(ctx); err != nil {
		return err
	}
	if err = b.meet(ctx); err != nil {
		return err
	}
	if err = b.openGateway(); err != nil {
		return err
	}
	if err = b.meetNeighbours(ctx); err != nil {
		return err
	}
	return b.furnish()
}

// start starts the container.
func (b *box) start(ctx context.Context) error {
	_, err := call(ctx, "container", func(ctx context.Context) (client.ContainerStartResult, error) {
		return b.daemon.ContainerStart(ctx, b.spec.Name, client.ContainerStartOptions{})
	})
	return err
}

// meet connects to the first process, as long as the container runs.
func (b *box) meet(ctx context.Context) (err error) {
	for deadline := time.Now().Add(readyTime); ; {
		if b.Guest, err = isolate.OpenGuest(b.guest(meetStep)); err == nil {
			return nil
		}
		running, runsErr := b.daemon.runs(ctx, b.spec.Name)
		if runsErr == nil && !running || time.Now().After(deadline) {
			return b.whyNot(ctx, err)
		}
	}
}

func (b *box) attachTo(ctx context.Context, n attachment) error {
	_, err := call(ctx, "network "+n.Name, func(ctx context.Context) (client.NetworkConnectResult, error) {
		return b.daemon.NetworkConnect(ctx, n.Name, client.NetworkConnectOptions{
			Container: b.spec.Name, EndpointConfig: &network.EndpointSettings{Aliases: n.Aliases},
		})
	})
	return err
}

// whyNot asks the daemon what became of a container that does not answer.
func (b *box) whyNot(ctx context.Context, err error) error {
	r, inspectErr := call(ctx, "container", func(ctx context.Context) (client.ContainerInspectResult, error) {
		return b.daemon.ContainerInspect(ctx, b.spec.Name, client.ContainerInspectOptions{})
	})
	if inspectErr != nil || r.Container.State == nil {
		return err
	}
	state := r.Container.State
	if state.Running {
		return &caisson.Error{
			Item: "container", Kind: caisson.ErrUnsupported,
			Err: fmt.Errorf("it runs, and can't be reached: the daemon does not see this host's folders (%w)", err),
		}
	}
	// Its first process says why, if it ever ran.
	text, _ := io.ReadAll(io.LimitReader(b.attached, maxText))
	return &caisson.Error{
		Item: "container", Kind: caisson.ErrUnavailable,
		Err: fmt.Errorf("it ended at its start with status %d: %w", state.ExitCode, said(fmt.Errorf("%s %q", state.Error, text))),
	}
}

// furnish finishes the container before anything of the task runs in it.
func (b *box) furnish() error {
	// The task is of the same user as the first process, and must not be able
	// to fill the folder, which is on this host.
	if err := errors.Join(os.Chmod(b.spec.Dir, 0o755), os.Chown(b.spec.Dir, os.Geteuid(), os.Getegid())); err != nil {
		return err
	}
	if err := b.setModes(); err != nil {
		return err
	}
	for _, s := range b.spec.Secrets {
		if err := b.writeSecret(s); err != nil {
			return fmt.Errorf("secret %s: %w", s.Name, err)
		}
	}
	return nil
}

// setModes sets the modes of folders in memory.
func (b *box) setModes() error {
	root, err := b.Guest.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	for target, mode := range b.spec.Modes {
		dir, err := openInside(int(root.Fd()), target)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		err = unix.Fchmod(dir, mode)
		unix.Close(dir)
		if err != nil && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	return nil
}

// writeSecret makes one file in the folder of secrets, which is in memory and
// root's.
func (b *box) writeSecret(s secretFile) error {
	root, err := b.Guest.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := openInside(int(root.Fd()), secretsDir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if s.Link != "" {
		return unix.Symlinkat(s.Link, dir, s.Name)
	}
	fd, err := unix.Openat(dir, s.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), s.Name)
	defer f.Close()
	if _, err := f.Write(s.Value); err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o400), f.Chown(b.spec.UID, b.spec.GID), f.Close())
}

// attach connects to the output of a container. The connection lives on after
// the call.
func (d *daemon) attach(ctx context.Context, name string) (io.ReadCloser, error) {
	type answer struct {
		client.ContainerAttachResult
		err error
	}
	// The client waits for the answer without looking at the context.
	got := make(chan answer, 1)
	go func() {
		r, err := d.ContainerAttach(ctx, name, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
		got <- answer{r, err}
	}()
	timer := time.NewTimer(callTime)
	defer timer.Stop()
	select {
	case a := <-got:
		if a.err != nil {
			return nil, sorted(ctx, "container", a.err)
		}
		return hijacked{a.HijackedResponse}, nil
	case <-timer.C:
		return nil, &caisson.Error{Item: "container", Kind: caisson.ErrUnavailable, Err: errSlow}
	}
}

// hijacked is an attached connection as a reader.
type hijacked struct{ client.HijackedResponse }

// Read implements io.Reader.
func (h hijacked) Read(p []byte) (int, error) { return h.Reader.Read(p) }

// Close implements io.Closer.
func (h hijacked) Close() error {
	h.HijackedResponse.Close()
	return nil
}

// copyTo begins to copy the output to copies of the two files.
func (b *box) copyTo(stdout, stderr *os.File, attached io.ReadCloser) (*copier, error) {
	out, err := duplicate(stdout)
	if err != nil {
		return nil, err
	}
	errs, err := duplicate(stderr)
	if err != nil {
		out.Close()
		return nil, err
	}
	c := startCopier(b.daemon, b.spec.Name, fmt.Appendf(nil, markTemplet, b.spec.Mark), attached, out, errs)
	b.mu.Lock()
	b.copier = c
	b.mu.Unlock()
	return c, nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// SpawnMain implements server.Resident.
func (b *box) SpawnMain(p *isolate.Program, stdout, stderr *os.File) (*isolate.Proc, error) {
	attached := b.attached
	b.attached = nil
	c, err := b.copyTo(stdout, stderr, attached)
	if err != nil {
		return nil, err
	}
	proc, err := b.Guest.SpawnMain(p)
	if err != nil {
		c.stop()
		b.mu.Lock()
		b.copier = nil
		b.mu.Unlock()
		return nil, err
	}
	go b.awaitQuiet(proc)
	return proc, nil
}

// Main implements server.Resident.
func (b *box) Main(stdout, stderr *os.File) (*isolate.Proc, time.Time, error) {
	proc, began := b.Guest.Main()
	if proc == nil {
		return nil, began, nil
	}
	if _, err := b.copyTo(stdout, stderr, nil); err != nil {
		return nil, began, err
	}
	go b.awaitQuiet(proc)
	return proc, began, nil
}

// awaitQuiet ends the output once nothing of the program is left to print.
func (b *box) awaitQuiet(proc *isolate.Proc) {
	<-proc.Done()
	for b.runs() {
		time.Sleep(quietStep)
	}
	_ = b.Drain()
}

// runs reports whether anything of the program runs.
func (b *box) runs() bool {
	b.mu.Lock()
	halted := b.halted
	b.mu.Unlock()
	return !halted && b.Guest.Alive()
}

// Halt implements server.Halter: the container outlives its program anyway.
func (b *box) Halt() error {
	if err := b.Guest.Halt(); err != nil {
		return err
	}
	b.mu.Lock()
	b.halted = true
	b.mu.Unlock()
	return nil
}

// Drain implements server.Resident. It may be called again, and at once.
func (b *box) Drain() error {
	b.mu.Lock()
	c, closed := b.copier, b.closed
	b.mu.Unlock()
	if c == nil || closed {
		return nil
	}
	// Where the container has ended there is nobody to make the mark, and the
	// daemon ends the output itself.
	_ = b.Guest.Mark(fmt.Appendf(nil, markTemplet, b.spec.Mark))
	err := c.wait(drainTime)
	lent := &mine{Chowned: b.spec.Lent, UID: b.spec.UID, GID: b.spec.GID}
	over := !b.runs()
	b.mu.Lock()
	if !b.returned && over {
		b.returned = true
		err = errors.Join(err, lent.giveBack(context.Background(), b.spec.Owner))
	}
	b.mu.Unlock()
	if b.Guest.Lost() {
		err = errors.Join(server.ErrLost, err)
	}
	return err
}

// Close implements server.Box: it removes the container.
func (b *box) Close() error {
	b.mu.Lock()
	c := b.copier
	b.closed = true
	b.mu.Unlock()
	if err := b.remove(); err != nil {
		return err
	}
	_ = b.Guest.Close()
	if c != nil {
		c.stop()
	}
	if b.attached != nil {
		b.attached.Close()
	}
	b.daemon.Close()
	return nil
}

func (b *box) remove() error { return b.daemon.remove(context.Background(), b.spec.Name) }

// remove removes a container, with the volumes that came with its image, if it
// is there.
func (d *daemon) remove(ctx context.Context, name string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		_, err := d.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err == nil || notFound(err) {
			return nil
		}
		// Somebody else removes it, too: it is gone when the daemon says so.
		if !errdefs.IsConflict(err) || ctx.Err() != nil {
			return sorted(ctx, "container "+name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(quietStep):
		}
	}
}
