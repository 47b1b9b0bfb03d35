package isolate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/cleanup"
)

// runtimePatience is how long a runtime may take for one command. All take
// tenths of a second at most; some hang where the host lacks something.
const runtimePatience = 20 * time.Second

// maxRuntimeWords is how much of what a runtime says about its failure is
// passed on.
const maxRuntimeWords = 2 << 10

// A contained is a Box that an OCI runtime has made. Its init is the one of any
// other sandbox: it starts programs, and so they have what the runtime has
// given to init and nothing else. Its parent is the stage, where the runtime
// ran: b.sandbox.init and pidfd are those of the stage's pid 1, whose end is
// everything's end.
type contained struct {
	*sandbox
	stage *sandbox
	pid1  int // the sandbox's init
}

// sentry reports whether programs run on a kernel of the runtime's, which gVisor
// calls so.
func (r *Runtime) sentry() bool { return r.Kind == Runsc }

// checkRuntime refuses what no runtime can do.
func checkRuntime(spec *Spec) error {
	r := spec.Runtime
	switch {
	case os.Geteuid() != 0:
		return unsupported("runtime", "only root can have an OCI runtime make sandboxes; use the builtin one")
	case !filepath.IsAbs(r.Path):
		return invalid("runtime", fmt.Sprintf("%q is not an absolute path", r.Path))
	case r.Kind != "" && r.Kind != Crun && r.Kind != Runc && r.Kind != Runsc:
		return invalid("runtime", fmt.Sprintf("unknown kind %q", r.Kind))
	case r.sentry() && spec.NetNS != "":
		return unsupported("network", "gVisor takes part in no network of others; use none or host")
	case r.sentry() && (len(spec.Sockets) > 0 || spec.Everything):
		return unsupported("gateway", "gVisor's network is its own, and nobody outside can listen in it")
	case r.sentry() && len(spec.Devices) > 0:
		return unsupported("devices", "gVisor gives none")
	case r.sentry() && spec.Landlock:
		return unsupported("landlock", "gVisor's kernel has none")
	case r.sentry() && len(spec.Sysctls) > 0:
		return unsupported("sysctls", "gVisor's kernel has its own settings")
	case r.sentry() && spec.Cgroup != nil && spec.Cgroup.PIDs > 0:
		return unsupported("pids", "gVisor's own processes would be counted")
	case !validName(spec.ID):
		return invalid("runtime", fmt.Sprintf("%q is not a name that runtimes take", spec.ID))
	}
	return nil
}

// validName reports whether a sandbox's name can be one for a runtime, and
// nothing that it takes for an option or a path.
func validName(id string) bool {
	return id != "" && id[0] != '-' && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// startContained has a runtime make a sandbox.
func startContained(spec *Spec) (_ backend, err error) {
	if err := check(spec, os.Geteuid() == 0); err != nil {
		return nil, err
	}
	if err := checkRuntime(spec); err != nil {
		return nil, err
	}
	var undo cleanup.List
	defer undo.OnError(context.Background(), &err)
	b := &contained{sandbox: newSandbox(), stage: newSandbox()}
	if b.group, err = newGroup(spec); err != nil {
		return nil, err
	}
	if b.group != nil {
		undo.Add(b.group.Remove)
	}

	// The stage is made first: where the runtime runs, with the root view. The
	// runtime hands one end of a socket to the sandbox's init.
	root, err := b.makeStage(spec, &undo)
	if err != nil {
		return nil, err
	}
	b.folder = os.NewFile(uintptr(root), "/")
	undo.Add(func() error { b.folder.Close(); return nil }) // perhaps once more
	theirs, err := b.connect()
	if err != nil {
		return nil, err
	}
	undo.Add(func() error { b.socket.Close(); return nil })
	err = b.create(spec, theirs)
	unix.Close(theirs)
	if err != nil {
		return nil, err
	}

	// From here on init answers, and its end is the sandbox's.
	b.init = b.stage.init
	if b.pidfd, err = unix.FcntlInt(uintptr(b.stage.pidfd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return nil, err
	}
	undo.Add(b.end)
	go b.listen()
	if err := b.prepareInit(spec); err != nil {
		return nil, err
	}
	if err := b.joinSockets(spec); err != nil {
		return nil, err
	}
	undo.Release()
	if spec.Runtime.sentry() {
		return &gvisor{b}, nil
	}
	return b, nil
}

// makeStage starts the stage's pid 1 and has it build the stage, of which it
// returns the sandbox's root.
func (b *contained) makeStage(spec *Spec, undo *cleanup.List) (root int, err error) {
	b.stage.stage = true
	report, err := b.stage.fork(spec)
	if err != nil {
		return -1, err
	}
	defer unix.Close(report)
	undo.Add(b.stage.end)
	go b.stage.listen()

	p, err := prepareStage(spec, b.stage.init, b.group)
	if err != nil {
		return -1, err
	}
	answer, err := b.stage.ask(frameSetup, p.setup.encode(), p.fds)
	closeAll(p.fds)
	if err != nil {
		return -1, setupError(err, report)
	}
	if len(answer.fds) != 1+len(p.setup.sockets) {
		closeAll(answer.fds)
		return -1, errors.New("caisson: bug: the stage did not hand over the root and the sockets")
	}
	// The network is the stage's, the sockets are the sandbox's.
	b.held = answer.fds[1:]
	undo.Add(func() error { b.shut(); return nil })
	return answer.fds[0], nil
}

// prepareStage gathers all that the stage needs from the host. The caller
// closes the descriptors.
func prepareStage(spec *Spec, pid int, group *cgroup.Group) (_ *preparation, err error) {
	part := *spec
	part.Seccomp, part.Landlock = false, false // those are for programs
	early, late := split(spec.Mounts)
	part.Mounts = early
	identity := spec.Runtime.sentry()
	if identity {
		part.UIDs, part.GIDs, part.RootIDMap = same(spec.UIDs), same(spec.GIDs), false
		part.Sys = false // its kernel has its own
	}
	p := newPreparation(&part, pid)
	p.identity = identity
	if err := p.prepare(nil); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(p.fds)
		}
	}()
	s := &p.setup
	s.showGroups = spec.Runtime.Kind != Crun && !identity
	if identity {
		// Its kernel can't be entered by programs alone: all of it is in the group.
		if err := p.gatherGroup(group); err != nil {
			return nil, err
		}
	}
	s.runtimeName, s.identity = filepath.Base(spec.Runtime.Path), identity
	if err := p.gatherPrograms(spec.Runtime); err != nil {
		return nil, err
	}
	if s.config, err = bundle(spec, s, late); err != nil {
		return nil, err
	}
	return p, nil
}

// same maps ids to themselves.
func same(list []IDMap) []IDMap {
	var out []IDMap
	for _, m := range list {
		out = append(out, IDMap{m.Inside, m.Inside, m.Size})
	}
	return out
}

// gatherPrograms takes the files of the runtime, which must be the one that was
// resolved, and of this program.
func (p *preparation) gatherPrograms(r *Runtime) error {
	fd, stat, err := openSource(r.Path)
	if err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Mode&0o111 == 0 {
		unix.Close(fd)
		return invalid(fmt.Sprintf("%q", r.Path), "not a program")
	}
	if fd, err = p.take(fd, readOnlyFile, -1); err != nil {
		return fmt.Errorf("%q: %w", r.Path, err)
	}
	p.setup.runtime = p.add(fd)
	return p.gatherOwn()
}

// gatherOwn takes this program's file, which becomes the sandbox's init: as
// ownProgram does, but from a path, because runtimes want one.
func (p *preparation) gatherOwn() error {
	path := pathOfProgram()
	fd, stat := -1, new(unix.Stat_t)
	if path != "" {
		var err error
		if fd, stat, err = openSource(path); err != nil {
			return err
		}
	}
	var err error
	if path == "" || stat.Mode&0o001 == 0 {
		closeAll([]int{fd})
		p.setup.copyProgram = true
		fd, err = copyProgram()
	} else {
		fd, err = p.take(fd, readOnlyFile, -1)
	}
	if err != nil {
		return fmt.Errorf("own program: %w", err)
	}
	p.setup.program = p.add(fd)
	return nil
}

// readOnlyFile are the attributes of programs that are shown on the stage.
const readOnlyFile = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// create runs the runtime until the sandbox's init runs, with socket as its
// descriptor 3, or as standard input where that is all that can be handed on.
func (b *contained) create(spec *Spec, socket int) error {
	r := spec.Runtime
	args := runtimeArgs(spec, stageTools+"/"+filepath.Base(r.Path))
	if r.sentry() {
		return b.stage.command(r, args, []int{socket})
	}
	null, err := devNull()
	if err != nil {
		return err
	}
	defer null.Close()
	return b.stage.command(r, args, []int{int(null.Fd()), socket})
}

// command runs the runtime on the stage, with a deadline. fds are its standard
// input, and what becomes descriptor 3 if there is one.
func (b *sandbox) command(r *Runtime, args []string, fds []int) error {
	said, err := r.openLog()
	if err != nil {
		return err
	}
	defer unix.Close(said)
	from, err := unix.Seek(said, 0, io.SeekEnd)
	if err != nil {
		return err
	}
	fds = slices.Concat(fds[:1], []int{said, said}, fds[1:])
	proc, err := b.launch(&Program{Args: args, Env: []string{"PATH=" + defaultPath}}, fds)
	if err != nil {
		return r.failure(err)
	}
	timer := time.NewTimer(runtimePatience)
	defer timer.Stop()
	select {
	case <-proc.Done():
	case <-timer.C:
		// The caller ends the stage, and with it whatever hangs.
		return r.failure(&caisson.Error{Kind: caisson.ErrUnavailable, Err: fmt.Errorf("it did not answer within %v", runtimePatience)})
	}
	if code, signal, _ := proc.Wait(); code != 0 || signal != 0 {
		return r.failure(failed(code, signal, said, from))
	}
	return nil
}

// openLog opens what takes the words of a runtime.
func (r *Runtime) openLog() (int, error) {
	if r.Log == "" {
		return unix.MemfdCreate("runtime", unix.MFD_CLOEXEC)
	}
	fd, err := unix.Open(r.Log, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("log of the runtime: %w", err)
	}
	return fd, nil
}

// failed says how a runtime has failed, in its own words.
func failed(code, signal, said int, from int64) error {
	how := fmt.Sprintf("it exited with status %d", code)
	if signal != 0 {
		how = fmt.Sprintf("it was killed by signal %d", signal)
	}
	buf := make([]byte, maxRuntimeWords)
	n, err := unix.Pread(said, buf, from)
	if words := strings.Join(strings.Fields(string(buf[:max(n, 0)])), " "); err == nil && words != "" {
		how += fmt.Sprintf(", saying %q", words)
	}
	return errors.New(how)
}

// failure is the error of a runtime that did not do its part.
func (r *Runtime) failure(err error) error {
	kind := caisson.KindOf(err)
	if kind == caisson.ErrUnknown {
		kind = caisson.ErrUnsupported
	}
	return &caisson.Error{Item: RuntimeItem + r.Path, Kind: kind, Err: err}
}

// prepareInit tells the sandbox's init what programs are to have.
func (b *contained) prepareInit(spec *Spec) error {
	p := &preparation{spec: spec, root: true}
	defer func() { closeAll(p.fds) }()
	if err := p.gatherContained(); err != nil {
		return err
	}
	if !spec.Runtime.sentry() {
		if err := p.gatherGroup(b.group); err != nil {
			return err
		}
	}
	answer, err := b.ask(frameSetup, p.setup.encode(), p.fds)
	if errors.Is(err, errGone) {
		err = errors.New("the sandbox that it made has no init that answers")
	}
	if err != nil {
		return spec.Runtime.failure(err)
	}
	if spec.Runtime.sentry() {
		return nil
	}
	if len(answer.fds) != 2 {
		closeAll(answer.fds)
		return errors.New("caisson: bug: init did not hand over the root and itself")
	}
	// The view from inside has the runtime's mounts, too.
	b.folder.Close()
	b.folder = os.NewFile(uintptr(answer.fds[0]), "/")
	b.pid1 = pidOf(answer.fds[1])
	return unix.Close(answer.fds[1])
}

// gatherContained is gather for an init whose view is complete.
func (p *preparation) gatherContained() (err error) {
	who := user(p.spec)
	p.setup = setup{
		contained: true, nested: p.spec.Nested, uid: who.UID, gid: who.GID, groups: groupsOf(who),
		root: -1, changes: -1, dev: -1, sysTree: -1, runtime: -1, program: -1,
		rootReadOnly: p.spec.RootReadOnly || p.spec.RootFS == "",
		files:        p.spec.Files, limits: p.spec.Limits, lastCap: lastCap(), landlock: p.spec.Landlock,
	}
	for _, c := range p.spec.Caps {
		p.setup.caps |= 1 << c
	}
	for _, m := range p.spec.Mounts {
		p.setup.mounts = append(p.setup.mounts, place{Mount: m, source: -1})
	}
	if p.spec.Seccomp {
		if p.setup.filter, err = filter(); err != nil {
			return err
		}
	}
	return nil
}

// gatherGroup hands over what processes need to move themselves into the group,
// into one of version 2, in which another init would be born, as well.
func (p *preparation) gatherGroup(group *cgroup.Group) error {
	if err := p.gatherCgroup(group); err != nil || group == nil {
		return err
	}
	dir, ok := group.FD()
	if !ok {
		return nil
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	p.setup.cgroups = append(p.setup.cgroups, p.add(fd))
	return nil
}

// pid implements backend.
func (b *contained) pid() int { return b.pid1 }

// stats implements backend.
func (b *contained) stats() (Stats, error) {
	if b.group != nil {
		return groupStats(b.group)
	}
	return ungrouped(reapedBy(b.pid1)), nil
}

// close implements backend.
func (b *contained) close() error {
	if err := b.sandbox.end(); err != nil {
		return err
	}
	if err := b.stage.end(); err != nil || b.group == nil {
		return err
	}
	return b.group.Remove()
}
