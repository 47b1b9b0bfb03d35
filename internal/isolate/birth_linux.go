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

// protect keeps the OOM killer from choosing init where there are others.
// Programs take it back for themselves.
func protect(pid int) bool {
	return writeKernel("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", "-900") == nil
}

// fork starts init on a thread that lives until the box is closed, because
// init's death is bound to that of the thread.
func (b *sandbox) fork(spec *Spec) (report int, err error) {
	type result struct {
		report int
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		report, err := b.forkHere(spec)
		done <- result{report, err}
		if err == nil {
			<-b.leave
		}
	}()
	r := <-done
	return r.report, r.err
}

func (b *sandbox) forkHere(spec *Spec) (report int, err error) {
	var fds []int // for the child only
	defer func() { closeAll(fds) }()
	take := func(fd int, err error) (int, error) {
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		up, err := high(fd)
		if err == nil {
			fds = append(fds, up)
		}
		return up, err
	}
	i := &infant{
		flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		intoFD: -1, root: os.Geteuid() == 0, lastCap: lastCap(), program: -1,
		readOnly: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID},
	}
	i.allCaps = allCaps(i.lastCap)
	if !spec.HostNetwork {
		i.flags |= unix.CLONE_NEWNET
	}
	if i.argv, err = cStrings([]string{initName}); err != nil {
		return -1, err
	}
	// Init does little at a time, and stays below a megabyte of heap.
	if i.envv, err = cStrings([]string{"GOMAXPROCS=2", "GOGC=25"}); err != nil {
		return -1, err
	}
	if i.null, err = take(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)); err != nil {
		return -1, fmt.Errorf("/dev/null: %w", err)
	}
	if err := i.chooseProgram(take); err != nil {
		return -1, err
	}
	if b.group != nil {
		if fd, ok := b.group.FD(); ok {
			b.inside = true
			if i.intoFD, err = take(fd, nil); err != nil {
				return -1, err
			}
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := b.connect(pair[0]); err != nil {
		unix.Close(pair[1])
		return -1, err
	}
	var pipe [2]int
	if i.socket, err = take(pair[1], nil); err == nil {
		err = unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	}
	if err != nil {
		b.socket.Close()
		return -1, err
	}
	if i.report, err = take(pipe[1], nil); err == nil {
		b.init, b.pidfd, err = i.fork(spec.UIDs, spec.GIDs)
	}
	if err != nil {
		b.socket.Close()
		unix.Close(pipe[0])
		return -1, err
	}
	return pipe[0], nil
}

// chooseProgram finds the file that init is executed from.
func (i *infant) chooseProgram(take func(int, error) (int, error)) (err error) {
	if !i.root {
		if path := pathOfProgram(); path != "" {
			i.path, err = unix.BytePtrFromString(path)
			return err
		}
		i.program, err = take(copyProgram())
		return err
	}
	i.program, err = take(ownProgram())
	return err
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

// connect makes the parent's end of the socket ready. The descriptor is the
// socket's from then on.
func (b *sandbox) connect(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	b.socket = os.NewFile(uintptr(fd), "init")
	raw, err := b.socket.SyscallConn()
	if err != nil {
		b.socket.Close()
		return err
	}
	b.conn = polled{raw}
	return nil
}
