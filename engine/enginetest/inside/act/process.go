package act

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// poll is how often a command looks whether what it waits for is there.
const poll = 5 * time.Millisecond

// trap has signals kept for await.
func (p *program) trap(args []string) error {
	if p.signals == nil {
		p.signals = make(map[int]<-chan int)
	}
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		p.signals[n] = p.Notify(n)
	}
	return nil
}

// await SIGNAL blocks until a trapped signal has come.
func (p *program) await(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for {
		select {
		case <-p.signals[n]:
			return nil
		default:
			p.Sleep(poll)
		}
	}
}

// first SIGNAL... blocks until one of some trapped signals has come, and ends
// the program with its number.
func (p *program) first(args []string) error {
	for {
		for _, arg := range args {
			n, err := strconv.Atoi(arg)
			if err != nil {
				return err
			}
			select {
			case <-p.signals[n]:
				return &exit{n}
			default:
			}
		}
		p.Sleep(poll)
	}
}

// ignore drops signals.
func (p *program) ignore(args []string) error {
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		p.Ignore(n)
	}
	return nil
}

// raise SIGNAL sends a signal to itself.
func (p *program) raise(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.Raise(n)
}

// spawn [-s] [-q] COMMANDS starts a child that runs the commands, with "," in
// place of ";" (and ",," in place of "," in a child's child), and goes on. -s
// gives it a session, -q no output.
func (p *program) spawn(args []string) error {
	var opts SpawnOptions
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		opts.Session = opts.Session || args[0] == "-s"
		opts.Quiet = opts.Quiet || args[0] == "-q"
		args = args[1:]
	}
	commands := make([]string, len(args))
	for i, arg := range args {
		commands[i] = arg
		if strings.Trim(arg, ",") == "" && arg != "" {
			commands[i] = arg[1:]
			if arg == "," {
				commands[i] = ";"
			}
		}
	}
	child, err := p.Spawn(opts, commands)
	if err == nil {
		p.children = append(p.children, child)
	}
	return err
}

// reap waits for all children.
func (p *program) reap([]string) error {
	for _, child := range p.children {
		if err := child.Wait(); err != nil {
			return err
		}
	}
	p.children = nil
	return nil
}

// forks N starts up to N children that stay, and prints how many there are and
// why there are not more: "forks 7 EAGAIN".
func (p *program) forks(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range n {
		if err := p.spawn([]string{"-q", "hold"}); err != nil {
			return p.say([]string{"forks", strconv.Itoa(i), ErrorName(err)})
		}
	}
	return p.say([]string{"forks", args[0], "ok"})
}

// tty prints "tty COLS ROWS", or "no tty".
func (p *program) tty([]string) error {
	cols, rows, ok := p.Terminal()
	if !ok {
		return p.say([]string{"no tty"})
	}
	return p.say([]string{fmt.Sprintf("tty %d %d", cols, rows)})
}

// resize COLS ROWS blocks until the terminal has that size.
func (p *program) resized(args []string) error {
	for {
		cols, rows, ok := p.Terminal()
		if !ok {
			return errors.New("no terminal")
		}
		if strconv.Itoa(cols) == args[0] && strconv.Itoa(rows) == args[1] {
			return nil
		}
		p.Sleep(poll)
	}
}

// ErrorName returns "ok" for nil, the name of err's errno, such as "EPERM", or
// its text.
func ErrorName(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return errnoName(errno)
	}
	return err.Error()
}
