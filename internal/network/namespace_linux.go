package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/thread"
)

// recordName is the record's copy in its folder, with what the plugins
// answered: Sweep finds by it what nobody knows of any more.
const recordName = "record.json"

// Usable returns nil if namespaces can be made here and now: it makes one, and
// throws it away.
func Usable() error {
	if os.Geteuid() != 0 {
		return failure(caisson.ErrUnsupported, "network namespace", errors.New("only root can make one that a sandbox has no rights over"))
	}
	return thread.Spend(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return failure(caisson.ErrUnsupported, "network namespace", err)
		}
		return loopbackUp()
	})
}

// Create makes the namespace with all that the record names. The caller has
// written the record down. If it fails nothing is left.
//
// Errors: ErrExists if the namespace is there, or a port is taken; ErrExhausted
// if a network has no more addresses; ErrUnavailable if a plugin fails or does
// not end.
func (r *Record) Create(ctx context.Context) (err error) {
	var undo cleanup.List
	defer undo.OnError(ctx, &err)
	if err := r.makeFolder(); err != nil {
		return err
	}
	undo.AddContext(r.Remove)
	if err := r.save(); err != nil {
		return err
	}
	if err := r.reserve(ctx); err != nil {
		return err
	}
	if r.User {
		if err := r.save(); err != nil {
			return err
		}
		undo.Release()
		return nil
	}
	if err := makeNamespace(r.Path()); err != nil {
		return err
	}
	for i := range r.Attachments {
		// Detaching needs the ports' numbers.
		r.Attachments[i].Tried = true
		if err := r.save(); err != nil {
			return err
		}
		if err := r.join(ctx, &r.Attachments[i]); err != nil {
			return err
		}
	}
	if err := r.save(); err != nil {
		return err
	}
	undo.Release()
	return nil
}

// join attaches the namespace to a network, behind its filters if it has some.
func (r *Record) join(ctx context.Context, a *Attachment) error {
	if a.VPN {
		return r.joinVPN(ctx, a)
	}
	if !a.Default {
		return r.attach(ctx, a)
	}
	if err := r.filterInside(ctx, a); err != nil {
		return err
	}
	if err := r.attach(ctx, a); err != nil {
		return err
	}
	return r.filterOutside(ctx, a)
}

// inNamespace calls f on a thread in the namespace at path.
func inNamespace(path string, f func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	return thread.Spend(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return f()
	})
}

// makeFolder makes the record's folder. What it lies in goes with the last one,
// which may be at any time.
func (r *Record) makeFolder() error {
	for {
		if err := os.MkdirAll(filepath.Dir(r.Folder), 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failure(caisson.ErrDenied, r.Folder, err)
		}
		err := os.Mkdir(r.Folder, 0o700)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return failure(caisson.ErrExists, "network namespace "+r.ID, errors.New("it is there already"))
		case !errors.Is(err, fs.ErrNotExist):
			return failure(caisson.ErrDenied, r.Folder, err)
		}
	}
}

// save writes the record to its folder. It lies in memory, so nothing has to
// reach a disk.
func (r *Record) save() error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(r.Folder, recordName), data, 0o600)
}

// Load returns the record as Create left it, with addresses and ports.
//
// Errors: ErrNotFound if the namespace is gone.
func (r *Record) Load() (*Record, error) {
	return load(r.Folder)
}

func load(folder string) (*Record, error) {
	data, err := os.ReadFile(filepath.Join(folder, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure(caisson.ErrNotFound, "network namespace "+filepath.Base(folder), errors.New("it is gone"))
	}
	if err != nil {
		return nil, err
	}
	out := new(Record)
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, recordName), err)
	}
	return out, nil
}

// Check returns nil if the namespace is there, attached as it was made. What
// publishes ports is not asked: portmap 1.1 misses rules for IPv6 where there
// is no IPv6.
//
// Errors: ErrNotFound if it is gone; ErrUnavailable if a plugin finds something
// amiss.
func (r *Record) Check(ctx context.Context) error {
	if r.User {
		_, err := r.Load()
		return err
	}
	if !there(r.Path()) {
		return failure(caisson.ErrNotFound, "network namespace "+r.ID, errors.New("it is gone"))
	}
	for i := range r.Attachments {
		if len(r.Attachments[i].Ports) > 0 {
			continue
		}
		if r.Attachments[i].VPN {
			if err := r.checkVPN(&r.Attachments[i]); err != nil {
				return err
			}
			continue
		}
		if err := r.check(ctx, &r.Attachments[i]); err != nil {
			return err
		}
	}
	return nil
}

// Remove undoes Create, from any state: the last attached is detached first.
// What is gone already is fine. On an error the rest stays, so that it can be
// called again.
func (r *Record) Remove(ctx context.Context) error {
	now := r.left()
	path := ""
	if there(r.Path()) {
		path = r.Path()
	}
	var errs []error
	for i := range slices.Backward(now.Attachments) {
		if !now.Attachments[i].Tried {
			continue
		}
		if now.Attachments[i].VPN {
			errs = append(errs, now.leaveVPN(ctx))
			continue
		}
		errs = append(errs, now.detach(ctx, &now.Attachments[i], path))
		if now.Attachments[i].Default {
			errs = append(errs, now.unfilter(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := removeNamespace(r.Path()); err != nil {
		return err
	}
	if err := now.release(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.Folder); err != nil {
		return err
	}
	// The folders above go with the last one.
	for dir := filepath.Dir(r.Folder); dir != filepath.Dir(r.base()); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// left is the record of what there may be to remove: as its folder tells, which
// knows what was tried and the ports, or, where a reboot or a crash has left
// none, everything that plugins keep elsewhere. Filters are gone then.
func (r *Record) left() *Record {
	if kept, err := load(r.Folder); err == nil {
		return kept
	}
	all := *r
	all.Attachments = slices.Clone(r.Attachments)
	for i := range all.Attachments {
		// Nobody has attached what is in user space.
		all.Attachments[i].Tried, all.Attachments[i].Ports = !r.User, nil
	}
	return &all
}

// Sweep removes the namespaces of this installation whose ids are not in live,
// and returns their ids.
func (o *Options) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(o.folder("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		id := e.Name()
		if slices.Contains(live, id) {
			continue
		}
		if err := o.Forget(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("network namespace %s: %w", id, err))
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(errs...)
}

// Forget removes the namespace of an id of which nothing is known but what lies
// in the runtime folder. There may be none.
func (o *Options) Forget(ctx context.Context, id string) error {
	rec, err := load(o.folder(id))
	if errors.Is(err, caisson.ErrNotFound) {
		rec, err = &Record{ID: id, Folder: o.folder(id), Owner: o.Installation + "/" + id, Ports: o.Ports}, nil
	}
	if err != nil {
		return err
	}
	return rec.Remove(ctx)
}

// lowPorts is the first port that any user may listen at, in the namespace of the
// thread that writes it.
const lowPorts = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// makeNamespace makes a namespace that is bound at path.
func makeNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return failure(caisson.ErrDenied, path, err)
	}
	f.Close()
	return thread.Spend(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if errors.Is(err, unix.ENOSPC) {
			return failure(caisson.ErrExhausted, "network namespace", fmt.Errorf("%w: raise user.max_net_namespaces", err))
		}
		if err != nil {
			return failure(caisson.ErrUnsupported, "network namespace", err)
		}
		if err := loopbackUp(); err != nil {
			return failure(caisson.ErrUnsupported, "network namespace", err)
		}
		// Programs are not root, and no port of their own network is worth
		// protecting from them. What can't be opened up stays closed.
		_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o600)
		// No port of its own network is worth protecting from a program that is not
		// root. A kernel without the setting has nothing to protect it with.
		_ = os.WriteFile(lowPorts, []byte("0"), 0)
		source := "/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/ns/net"
		if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
			return failure(caisson.ErrDenied, path, err)
		}
		return nil
	})
}

// removeNamespace undoes makeNamespace. A namespace lives on while anything is
// in it, but nobody new gets in.
func removeNamespace(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // nothing is mounted there any more
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// there reports whether a namespace is bound at path.
func there(path string) bool {
	const nsfs = 0x6e736673
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfs
}

// loopbackUp switches on the loopback device of the thread's namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// Dial connects to a TCP port of the loopback address of the namespace at path.
//
// Errors: ErrAborted if the namespace is gone; ErrUnavailable if nobody listens.
func Dial(ctx context.Context, path string, port int) (net.Conn, error) {
	item := fmt.Sprintf("port %d", port)
	fd, err := socketIn(path)
	if err != nil {
		return nil, &caisson.Error{Item: item, Kind: caisson.ErrAborted, Err: err}
	}
	// A socket stays in the namespace that it was made in, so the rest needs no
	// thread of its own.
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if err := connect(ctx, fd, port); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &caisson.Error{Item: item, Kind: caisson.ErrUnavailable, Err: err}
	}
	return net.FileConn(f)
}

// socketIn returns a socket of a namespace.
func socketIn(path string) (fd int, err error) {
	err = inNamespace(path, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	return fd, err
}

// connectPoll is how often connect looks whether its context has ended.
const connectPoll = 50 * time.Millisecond

// connect connects a socket to a port of the loopback address.
func connect(ctx context.Context, fd, port int) error {
	err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(connectPoll.Milliseconds()))
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return err
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if code != 0 {
			return syscall.Errno(code)
		}
		return nil
	}
}
