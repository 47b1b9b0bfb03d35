package isolate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// fork starts init on a thread that lives until the box is closed, because
// init's death is bound to that of the thread. What a child that never becomes
// init has to say can be read from report.
func (b *sandbox) fork(spec *Spec) (report int, err error) {
	type result struct {
		report int
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		if spec.NetNS == "" {
			// Otherwise the thread is in another network and must not be used for
			// anything else: it ends with this goroutine.
			defer runtime.UnlockOSThread()
		}
		report, err := b.bear(spec)
		done <- result{report, err}
		if err == nil {
			<-b.leave
		}
	}()
	r := <-done
	return r.report, r.err
}

// bear makes everything that the infant needs, and forks it.
func (b *sandbox) bear(spec *Spec) (report int, err error) {
	i := &infant{
		flags: b.namespaces(spec), intoFD: -1,
		program: -1, root: os.Geteuid() == 0, lastCap: lastCap(),
		readOnly: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID},
	}
	i.allCaps = allCaps(i.lastCap)
	if spec.NetNS != "" {
		// This thread enters it, while it still has the rights to: the child is
		// born in it, in a user namespace that has none.
		if err := enterNetwork(spec.NetNS); err != nil {
			return -1, err
		}
	}
	name := initName
	if b.stage {
		name = stageName
	}
	if i.argv, err = cStrings([]string{name}); err != nil {
		return -1, err
	}
	// Init does little at a time, and stays below a megabyte of heap.
	if i.envv, err = cStrings([]string{"GOMAXPROCS=2", "GOGC=25"}); err != nil {
		return -1, err
	}

	// These descriptors are for the child only.
	var fds lifted
	defer func() { closeAll(fds) }()
	if i.null, err = fds.take(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)); err != nil {
		return -1, fmt.Errorf("/dev/null: %w", err)
	}
	if err := i.chooseProgram(&fds); err != nil {
		return -1, err
	}
	if b.group != nil {
		var fd int
		if fd, b.inside = b.group.FD(); b.inside {
			if i.intoFD, err = fds.take(fd, nil); err != nil {
				return -1, err
			}
		}
	}
	if i.socket, err = fds.take(b.connect()); err != nil {
		return -1, err
	}
	report, err = b.forkInfant(i, spec, &fds)
	if err != nil {
		b.socket.Close()
	}
	return report, err
}

// namespaces are those that init is born in.
func (b *sandbox) namespaces(spec *Spec) uintptr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	if spec.NetNS == "" && !spec.HostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	// A runtime that brings a kernel of its own wants the rights to isolate that.
	if b.stage && spec.Runtime.sentry() {
		flags &^= unix.CLONE_NEWUSER
	}
	return flags
}

// forkInfant forks the infant with a pipe to report by.
func (b *sandbox) forkInfant(i *infant, spec *Spec, fds *lifted) (report int, err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	if i.report, err = fds.take(pipe[1], nil); err == nil {
		b.init, b.pidfd, err = i.fork(spec.UIDs, spec.GIDs)
	}
	if err != nil {
		unix.Close(pipe[0])
		return -1, err
	}
	return pipe[0], nil
}

// chooseProgram finds the file that init is executed from.
func (i *infant) chooseProgram(fds *lifted) (err error) {
	if i.root {
		i.program, err = fds.take(ownProgram())
		return err
	}
	if path := pathOfProgram(); path != "" {
		i.path, err = unix.BytePtrFromString(path)
		return err
	}
	i.program, err = fds.take(copyProgram())
	return err
}

// connect makes the socket to init ready and returns init's end of it.
func (b *sandbox) connect() (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		closeAll(pair[:])
		return -1, err
	}
	b.socket = os.NewFile(uintptr(pair[0]), "init")
	raw, err := b.socket.SyscallConn()
	if err != nil {
		b.socket.Close()
		unix.Close(pair[1])
		return -1, err
	}
	b.conn = polled{raw}
	return pair[1], nil
}

// allCaps is every capability, permitted, effective and inheritable.
func allCaps(last int) (data [2]unix.CapUserData) {
	for n := 0; n <= last; n++ {
		data[n/32].Permitted |= 1 << (n % 32)
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = data[i].Permitted
	}
	return data
}

// lifted are descriptors for a child, with numbers that are not in its way.
type lifted []int

// lift adds a copy of a descriptor and returns it.
func (l *lifted) lift(fd int) (int, error) {
	up, err := high(fd)
	if err == nil {
		*l = append(*l, up)
	}
	return up, err
}

// take adds a descriptor in place of one that was just opened.
func (l *lifted) take(fd int, err error) (int, error) {
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return l.lift(fd)
}

// protect keeps the OOM killer from choosing init where there are others.
// Programs take it back for themselves.
func protect(pid int) bool {
	return writeKernel("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", "-900") == nil
}

// setupError prefers what a child that never became init has reported.
func setupError(err error, report int) error {
	if !errors.Is(err, errGone) {
		return err
	}
	if early := readReport(report); early != nil {
		return &caisson.Error{Item: "init", Kind: caisson.ErrUnsupported, Err: early}
	}
	return fmt.Errorf("init ended during setup: %w", err)
}
