package attack

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/tasklog"
)

// What path_open is asked for.
const (
	create    = 1
	directory = 2
	follow    = 1
	preopen   = 3  // the first folder that a module is given
	everyBit  = -1 // all rights
	success   = 0
)

// Modules returns the attacks of WebAssembly modules: on engines with
// Features.Module, which may run nothing else.
func Modules() []Attack {
	module := []string{"module", "share_work"}
	return []Attack{
		{
			ID: "A1", Name: "module/paths", Run: modulePaths, Needs: module, Bound: "a file of the trial's own is aimed at",
			Tries: "read a file of the host and make others beside it by .., absolute names, and links that the module or the host has made",
		},
		{
			ID: "A1", Name: "module/descriptors", Run: moduleDescriptors, Needs: module, Bound: "a file of the trial's own is aimed at",
			Tries: "the same after descriptors were closed, renumbered and reused, by descriptors that nobody gave, and with every right that there is",
		},
		{
			ID: "A7", Name: "module/pointers", Run: modulePointers, Needs: module, Bound: "the module's keeper alone could fail",
			Tries: "hand functions of WASI addresses, sizes and counts outside of the module's memory",
		},
		{
			ID: "A7", Name: "module/sockets", Run: moduleSockets, Needs: module, Bound: "descriptors of the module alone are tried",
			Tries: "accept, receive, send and shut down by every descriptor",
		},
		{
			ID: "D31", Name: "module/endless", Run: moduleEndless, Needs: module, Bound: "its time limit is a second",
			Tries: "run on after the time limit: in a loop that calls nothing, and asleep for a day",
		},
	}
}

// moduleBox runs a module.
func (t *Trial) moduleBox(data []byte, prepare func(work string)) *box {
	spec := t.Spec()
	spec.Module, spec.Args, spec.Mounts = filepath.Join(filepath.Dir(spec.Dir), "module.wasm"), nil, nil
	t.OK(os.WriteFile(spec.Module, data, 0o644), "WriteFile")
	if prepare != nil {
		prepare(spec.Work)
	}
	spec.Timeout = caisson.Duration(20 * time.Second)
	return t.start(spec)
}

// read has a module open a name and read from it.
func (m *module) read(dir operand, name string, flags int64) {
	address, size := m.text(name)
	fd := m.vector(0, 0)
	m.call("path_open", dir, num(follow), address, size, num(flags), large(everyBit), large(everyBit), num(0), fd)
	m.call("fd_read", at(fd.n), m.vector(bufferAt, bufferSize), num(1), num(outCount))
	m.call("fd_close", at(fd.n))
}

// make has a module make a file and a folder of a name, and links to and from it.
func (m *module) make(dir operand, name string) {
	m.read(dir, name, create)
	address, size := m.text(name)
	m.call("path_create_directory", dir, address, size)
	from, fromSize := m.text("from")
	m.call("path_symlink", from, fromSize, dir, address, size)
	m.call("path_link", dir, num(0), from, fromSize, dir, address, size)
	m.call("path_rename", dir, from, fromSize, dir, address, size)
}

// outside are names of a folder of the host, as a module could say them.
func outside(dir string) []string {
	up := strings.Repeat("../", 24)
	return []string{
		dir, up + dir[1:], "/" + dir, "./" + up + dir[1:], "work/" + up + dir[1:], "/work/../" + up + dir[1:], "tmp/.." + dir,
		"link" + dir, "host", "updir" + dir, "work/link" + dir, "work/host", "/proc/self/root" + dir, "self" + dir,
	}
}

// own is a file that a module may read, and what is in it: a trial whose module
// does not see that has shown nothing.
const (
	own     = "own-file"
	ownText = "text of the module's own file"
)

// links puts links to the host into a work folder, as an input or an earlier step
// could.
func (t *Trial) links(dir string) func(work string) {
	return func(work string) {
		// It is opened with every right there is.
		t.OK(errors.Join(os.WriteFile(filepath.Join(work, own), []byte(ownText), 0o666), os.Chmod(filepath.Join(work, own), 0o666)), "WriteFile")
		for name, target := range map[string]string{
			"link": "/", "host": dir, "updir": strings.Repeat("../", 24), "self": "/proc/self/root",
		} {
			t.OK(os.Symlink(target, filepath.Join(work, name)), "Symlink")
		}
	}
}

// aim has a module try everything on a folder of the host.
func (m *module) aim(dir operand, folder string) {
	for _, name := range outside(folder) {
		m.read(dir, name+"/flag", 0)
		m.read(dir, name, directory)
		m.make(dir, name+"/made")
	}
}

// unharmed checks that a module has neither seen the flag nor made anything.
func (t *Trial) unharmed(b *box, dir, flag string) {
	exit := b.wait()
	if exit.Reason == caisson.ReasonLost || exit.Reason == caisson.ReasonTimeout {
		t.Errorf("it ended with %s", exit.Reason)
	}
	out := b.stdout()
	if strings.Contains(out, flag) {
		t.Errorf("the module has read the host's file")
	}
	if !strings.Contains(out, ownText) && !t.Failed() {
		t.OK(fmt.Errorf("it has not read its own file: %s, code %d, %.300q", exit.Reason, exit.Code, b.output(tasklog.Stderr)), "the module")
	}
	t.Empty(filepath.Join(dir, "empty"))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the host's folder has %d entries now, and had 2: %v", len(entries), err)
	}
}

// target makes a folder of the host with a flag in it, where everybody may write.
func (t *Trial) target() (dir, flag string) {
	dir, flag = t.Folder("target"), "flag-of-"+filepath.Base(t.Dir)
	t.OK(errors.Join(
		os.Chmod(dir, fs.ModePerm), os.WriteFile(filepath.Join(dir, "flag"), []byte(flag), 0o644), os.Mkdir(filepath.Join(dir, "empty"), fs.ModePerm),
	), "target")
	return dir, flag
}

func modulePaths(t *Trial) {
	dir, flag := t.target()
	m := newModule()
	for name, to := range map[string]string{"mine": dir, "work/mine": "/", "tmp/mine": strings.Repeat("../", 24)} {
		target, size := m.text(to)
		link, linkSize := m.text(name)
		m.call("path_symlink", target, size, num(preopen), link, linkSize)
		m.read(num(preopen), name+"/flag", 0)
		m.read(num(preopen), name+dir+"/flag", 0)
		m.call("path_readlink", num(preopen), link, linkSize, num(bufferAt), num(0), num(outCount))
	}
	m.aim(num(preopen), dir)
	m.read(num(preopen), own, 0)
	t.unharmed(t.moduleBox(m.bytes(), t.links(dir)), dir, flag)
}

func moduleDescriptors(t *Trial) {
	dir, flag := t.target()
	m := newModule()
	m.read(num(preopen), own, 0)
	for _, to := range []int64{0, 2, 4, 9, 1 << 20, math.MaxInt32, math.MaxUint32} {
		m.call("fd_renumber", num(preopen), num(to))
		m.read(num(to), dir[1:]+"/flag", 0)
		m.read(num(to), "../"+dir[1:]+"/flag", 0)
		m.call("fd_renumber", num(to), num(preopen))
	}
	m.call("fd_fdstat_set_rights", num(preopen), large(everyBit), large(everyBit))
	m.call("fd_close", num(preopen))
	m.call("fd_close", num(preopen))
	for fd := int64(3); fd < 12; fd++ {
		m.read(num(fd), dir[1:]+"/flag", 0)
		m.call("fd_prestat_dir_name", num(fd), num(bufferAt), num(64))
	}
	b := t.moduleBox(m.bytes(), t.links(dir))
	t.unharmed(b, dir, flag)
}

func modulePointers(t *Trial) {
	// Each in a module of its own: one that is ended says nothing more.
	for _, address := range []int64{65535, 65536, math.MaxInt32, math.MaxUint32, math.MaxUint32 - 7} {
		bad := num(address)
		m := newModule()
		huge := m.vector(uint32(address), math.MaxUint32)
		m.call("fd_read", num(0), huge, num(1), num(outCount))
		m.call("fd_read", num(0), bad, num(math.MaxUint32), bad)
		m.call("args_get", bad, bad)
		m.call("environ_get", bad, bad)
		m.call("args_sizes_get", bad, bad)
		m.call("clock_time_get", num(0), large(0), bad)
		m.call("random_get", bad, num(math.MaxUint32))
		m.call("path_open", num(preopen), num(1), bad, num(math.MaxUint32), num(0), large(everyBit), large(everyBit), num(0), bad)
		m.call("fd_readdir", num(preopen), bad, num(math.MaxUint32), large(math.MinInt64), bad)
		m.call("fd_prestat_dir_name", num(preopen), bad, num(math.MaxUint32))
		m.call("fd_filestat_get", num(preopen), bad)
		m.call("path_readlink", num(preopen), bad, num(8), bad, num(math.MaxUint32), bad)
		m.call("poll_oneoff", bad, bad, num(math.MaxUint32), bad)
		m.call("fd_seek", num(0), large(math.MinInt64), num(0), bad)
		b := t.moduleBox(m.bytes(), nil)
		b.success()
		out := b.stdout()
		for i := range m.results - 1 {
			// Of what was printed the first bytes are what calls have answered.
			if 4*i < len(out) && out[4*i] == success && m.names[min(i, len(m.names)-1)] != "fd_read" {
				t.Errorf("call %d with address %#x succeeded", i, address)
			}
		}
	}
}

func moduleSockets(t *Trial) {
	m := newModule()
	calls := 0
	for fd := int64(0); fd < 16; fd++ {
		v := m.vector(bufferAt, bufferSize)
		m.call("sock_accept", num(fd), num(0), num(outCount))
		m.call("sock_recv", num(fd), v, num(1), num(0), num(outCount), num(outCount))
		m.call("sock_send", num(fd), v, num(1), num(0), num(outCount))
		m.call("sock_shutdown", num(fd), num(3))
		calls += 4
	}
	b := t.moduleBox(m.bytes(), nil)
	b.success()
	out := b.stdout()
	for i := range calls {
		if 4*i >= len(out) || out[4*i] == success {
			t.Errorf("a call by descriptor %d succeeded", i/4)
		}
	}
}

func moduleEndless(t *Trial) {
	loop := newModule()
	loop.body = []byte{0x03, 0x40, 0x0c, 0, 0x0b} // loop, br 0, end
	sleep := newModule()
	const clock, nanos = 16, 24
	day := make([]byte, 48)
	day[clock] = 1 // the monotonic one
	for i := range 8 {
		day[nanos+i] = byte(int64(24*time.Hour) >> (8 * i))
	}
	address, _ := sleep.text(string(day))
	sleep.call("poll_oneoff", address, num(bufferAt), num(1), num(outCount))
	for _, m := range []*module{loop, sleep} {
		spec := t.Spec()
		spec.Module, spec.Args, spec.Mounts = filepath.Join(filepath.Dir(spec.Dir), "module.wasm"), nil, nil
		t.OK(os.WriteFile(spec.Module, m.bytes(), 0o644), "WriteFile")
		spec.Timeout = caisson.Duration(time.Second)
		if exit := t.start(spec).wait(); exit.Reason != caisson.ReasonTimeout {
			t.Errorf("it ended with %s, code %d", exit.Reason, exit.Code)
		}
	}
}
