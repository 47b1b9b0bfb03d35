// Package act is what the inside program of the conformance suite can do: say
// what it sees, and do what well- and ill-behaved tasks do. It reaches the
// system only through a World, so that an engine which runs no real processes
// can offer the same program.
//
// The arguments are a sequence of commands separated by ";":
//
//	say hello ; print stderr 100 7 ; exit 3
//
// A command that fails says why on stderr and ends the program with FailCode.
package act

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/caissonrun/caisson/internal/rfb"
)

// FailCode is the exit code of a program one of whose commands failed.
const FailCode = 99

// A World is a process as the program in it knows it. Its errors wrap a
// syscall.Errno where the system gave one. A World's methods may end the
// calling goroutine where the process is killed.
type World interface {
	Stdin() io.Reader
	Stdout() io.Writer
	Stderr() io.Writer

	// OpenFile, and what follows, work on paths as package os does.
	OpenFile(path string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Lstat(path string) (fs.FileInfo, error)
	Mkdir(path string, perm fs.FileMode) error
	Remove(path string) error
	Rename(from, to string) error
	Chmod(path string, perm fs.FileMode) error
	Chdir(path string) error
	Link(from, to string) error
	Symlink(target, path string) error
	Mkfifo(path string) error
	// Lock takes an exclusive lock on a file, which it makes, until the
	// process ends.
	Lock(path string) error

	Sleep(d time.Duration)
	// Spin uses processor time for d.
	Spin(d time.Duration)
	// Alloc uses n more bytes of memory until the process ends.
	Alloc(n int64) error
	// CloseFD closes a descriptor, such as 1.
	CloseFD(fd int) error

	// Notify has signals sent to the channel instead of their default.
	Notify(signals ...int) <-chan int
	// Ignore drops signals.
	Ignore(signals ...int)
	// Raise sends a signal to this process.
	Raise(signal int) error
	// Spawn starts this program again with other commands.
	Spawn(opts SpawnOptions, args []string) (Child, error)

	// Terminal returns the size of the terminal that stdin is.
	Terminal() (cols, rows int, ok bool)
	// Dial opens a connection.
	Dial(network, address string) (net.Conn, error)
	// Resolve returns the addresses of a name.
	Resolve(name string) ([]string, error)
	// Steal listens at an address by every means that the system has to share
	// one, and answers with "stolen" to the end of the process.
	Steal(network, address string) error
	// Serve answers connections to a TCP port of all its addresses with a word,
	// from when it returns to the end of the process.
	Serve(port int, word string) error
	// Show serves a screen at an address, "unix" or "tcp", from when it returns to
	// the end of the process.
	Show(network, address string, screen *rfb.Screen) error
	// Loopback connects this process to itself.
	Loopback() error
	// Memory tells where in the process's own memory the text of Masked is.
	Memory(masked string) ([]string, error)
	// Attempt tries something that an isolated program must not be able to do.
	// It is nil where that worked. "remount:PATH" makes a read-only mount
	// writable.
	Attempt(name string) error
	// Facts returns what the process can see of itself and around it.
	Facts() (*Facts, error)
}

// SpawnOptions says how a child differs from its parent.
type SpawnOptions struct {
	Session bool // in a session of its own
	Quiet   bool // its descriptors 0 to 2 are /dev/null
}

// A Child is a process that Spawn started.
type Child interface {
	// Wait blocks until the child has ended.
	Wait() error
}

// Facts are what a process sees.
type Facts struct {
	PID    int   `json:"pid"`
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups"`

	// Caps are the five sets of Linux capabilities: CapInh, CapPrm, CapEff,
	// CapBnd and CapAmb, as bits in hexadecimal.
	Caps       map[string]string `json:"caps"`
	NoNewPrivs bool              `json:"no_new_privs"`
	Seccomp    int               `json:"seccomp"` // 0 none, 2 a filter

	Args     []string `json:"args"`
	Env      []string `json:"env"`
	Dir      string   `json:"dir"`
	Hostname string   `json:"hostname"`

	FDs        map[int]string    `json:"fds"` // open descriptors and what they are
	Limits     map[string]uint64 `json:"limits"`
	Mounts     []Mount           `json:"mounts"`
	Interfaces []string          `json:"interfaces"`
	// Processes are the ids and names of all processes that can be seen.
	Processes map[int]string `json:"processes"`
	// Namespaces are the identities of the process's own, such as "pid" to
	// "pid:[4026531836]".
	Namespaces map[string]string `json:"namespaces"`
}

// A Mount is one line of the mount table.
type Mount struct {
	Target   string `json:"target"`
	Type     string `json:"type"`
	ReadOnly bool   `json:"readonly"`
}

// Run runs the commands in args and returns the exit code.
func Run(w World, args []string) int {
	p := &program{World: w}
	for _, words := range split(args) {
		err := p.run(words)
		var end *exit
		if errors.As(err, &end) {
			return end.code
		}
		if err != nil {
			fmt.Fprintf(w.Stderr(), "inside: %s: %v\n", words[0], err)
			return FailCode
		}
	}
	return 0
}

// exit is the error by which a command ends the program.
type exit struct{ code int }

func (e *exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

// split cuts args into commands.
func split(args []string) [][]string {
	var commands [][]string
	var words []string
	for _, arg := range append(args[:len(args):len(args)], ";") {
		if arg != ";" {
			words = append(words, arg)
			continue
		}
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	return commands
}
