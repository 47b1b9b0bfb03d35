package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is searched where a program's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// setProgram fills in what the child executes.
func (c *child) setProgram(p *Program) (err error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return &ExecError{Code: 127, Err: errors.New("no command is given")}
	}
	if c.argv, err = cStrings(p.Args); err != nil {
		return err
	}
	if c.envv, err = cStrings(p.Env); err != nil {
		return err
	}
	paths, err := cStrings(candidates(p))
	if err != nil {
		return err
	}
	c.paths = paths[:len(paths)-1]
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	c.dir, err = unix.BytePtrFromString(dir)
	return err
}

// candidates returns the files that Args[0] may mean, as a shell would look
// for them. An empty element of PATH is not taken as the current directory.
func candidates(p *Program) []string {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, e := range p.Env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	var list []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir != "" {
			list = append(list, strings.TrimRight(dir, "/")+"/"+name)
		}
	}
	return list
}

// cStrings returns the strings as the kernel wants them, with nil at the end.
func cStrings(list []string) ([]*byte, error) {
	all := make([]*byte, 0, len(list)+1)
	for _, s := range list {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, &ExecError{Code: 126, Err: errors.New("an argument or variable holds a NUL byte")}
		}
		all = append(all, p)
	}
	return append(all, nil), nil
}

// execError turns the failure of a child into what the caller of Spawn sees:
// an *ExecError where the program is at fault.
func execError(p *Program, step int, errno syscall.Errno) error {
	name := ""
	if len(p.Args) > 0 {
		name = p.Args[0]
	}
	switch {
	case step == stepDir:
		return &ExecError{Code: 126, Err: fmt.Errorf("working directory %q: %w", p.Dir, errno)}
	case step == stepInterpreter:
		return &ExecError{Code: 127, Err: fmt.Errorf("%q: the interpreter that its first line or header names is not there: %w", name, errno)}
	case step == stepExec && (errno == unix.ENOENT || errno == unix.ENOTDIR):
		return &ExecError{Code: 127, Err: fmt.Errorf("%q: command not found", name)}
	case step == stepExec && errno == unix.ENOEXEC:
		return &ExecError{Code: 126, Err: fmt.Errorf("%q: neither a program for this machine nor a script that begins with #!: %w", name, errno)}
	case step == stepExec:
		return &ExecError{Code: 126, Err: fmt.Errorf("%q: can't be executed: %w", name, errno)}
	}
	return fmt.Errorf("start %q: %w", name, &stepError{step, errno})
}

// ended turns a wait status into a code or a signal.
func ended(status unix.WaitStatus) (code, signal int) {
	if status.Signaled() {
		return 0, int(status.Signal())
	}
	return status.ExitStatus(), 0
}

// lastCap returns the number of the kernel's last capability.
func lastCap() int {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		return unix.CAP_LAST_CAP
	}
	n := 0
	for _, c := range strings.TrimSpace(string(text)) {
		n = n*10 + int(c-'0')
	}
	return n
}

// high returns a copy of fd whose number is above those of standard input,
// output and error, and above what is open usually.
func high(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
}
