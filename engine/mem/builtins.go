package mem

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
)

// Builtins returns the programs that every sandbox has, by name:
//
//	true, false, exit N        end with a code
//	echo TEXT, cat [FILE]      print; cat without a file copies its input
//	env, pwd, ls [DIR]         print what there is
//	write FILE TEXT            make a file, with a newline at its end
//	mkdir DIR, rm FILE         as in a shell, one argument
//	sleep TIME, hold           wait: 1.5 and 10ms are times; hold waits for ever
//	stubborn                   hold, deaf for TERM, INT and HUP
//	signal N                   send itself a signal
//	spin TIME, alloc SIZE      use processor time, or memory
//	oom                        use more memory than any limit permits
//	fork N                     start N processes that hold
//	sh [-c SCRIPT]             a little shell; see its type
func Builtins() map[string]Program {
	return map[string]Program{
		"true":     func(*Proc) int { return 0 },
		"false":    func(*Proc) int { return 1 },
		"exit":     runExit,
		"echo":     runEcho,
		"cat":      runCat,
		"env":      runEnv,
		"pwd":      func(p *Proc) int { return p.print(p.Getwd() + "\n") },
		"ls":       runList,
		"write":    runWrite,
		"mkdir":    func(p *Proc) int { return p.report(p.Mkdir(p.arg(1), 0o755)) },
		"rm":       func(p *Proc) int { return p.report(p.Remove(p.arg(1))) },
		"sleep":    func(p *Proc) int { return p.timed(p.Sleep) },
		"hold":     runHold,
		"stubborn": func(p *Proc) int { p.Ignore(1, sigInt, sigTerm); return runHold(p) },
		"signal":   runSignal,
		"spin":     func(p *Proc) int { return p.timed(p.Spin) },
		"alloc":    runAlloc,
		"oom":      func(p *Proc) int { return p.report(p.Alloc(math.MaxInt64 / 2)) },
		"fork":     runFork,
		"sh":       runShell,
	}
}

// arg returns an argument, or "".
func (p *Proc) arg(i int) string {
	if i < len(p.args) {
		return p.args[i]
	}
	return ""
}

// print writes to stdout and returns the exit code.
func (p *Proc) print(text string) int {
	_, err := io.WriteString(p.Stdout(), text)
	return p.report(err)
}

// report prints err and returns the exit code.
func (p *Proc) report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(p.Stderr(), "%s: %v\n", p.args[0], err)
	return 1
}

// timed calls f with the time that the first argument names.
func (p *Proc) timed(f func(time.Duration)) int {
	seconds, err := strconv.ParseFloat(p.arg(1), 64)
	d := time.Duration(seconds * float64(time.Second))
	if err != nil {
		if d, err = time.ParseDuration(p.arg(1)); err != nil {
			return p.report(err)
		}
	}
	f(d)
	return 0
}

func runExit(p *Proc) int {
	code, err := strconv.Atoi(p.arg(1))
	if err != nil {
		return p.report(err)
	}
	return code
}

func runEcho(p *Proc) int {
	args, end := p.args[1:], "\n"
	if p.arg(1) == "-n" {
		args, end = args[1:], ""
	}
	return p.print(strings.Join(args, " ") + end)
}

func runCat(p *Proc) int {
	if len(p.args) == 1 {
		_, err := io.Copy(p.Stdout(), p.Stdin())
		return p.report(err)
	}
	for _, name := range p.args[1:] {
		data, err := p.ReadFile(name)
		if err != nil {
			return p.report(err)
		}
		if code := p.print(string(data)); code != 0 {
			return code
		}
	}
	return 0
}

func runEnv(p *Proc) int { return p.print(strings.Join(p.env, "\n") + "\n") }

func runList(p *Proc) int {
	dir := p.arg(1)
	if dir == "" {
		dir = "."
	}
	entries, err := p.ReadDir(dir)
	if err != nil {
		return p.report(err)
	}
	for _, e := range entries {
		if code := p.print(e.Name() + "\n"); code != 0 {
			return code
		}
	}
	return 0
}

func runWrite(p *Proc) int {
	if len(p.args) < 3 {
		return p.report(fmt.Errorf("use %s FILE TEXT", p.args[0]))
	}
	return p.report(p.WriteFile(p.args[1], []byte(strings.Join(p.args[2:], " ")+"\n"), 0o644))
}

func runHold(p *Proc) int {
	for {
		p.Sleep(time.Hour)
	}
}

func runSignal(p *Proc) int {
	n, err := caisson.ParseSignal(p.arg(1))
	if err != nil {
		return p.report(err)
	}
	return p.report(p.Raise(n))
}

func runAlloc(p *Proc) int {
	n, err := caisson.ParseBytes(p.arg(1))
	if err != nil {
		return p.report(err)
	}
	return p.report(p.Alloc(int64(n)))
}

func runFork(p *Proc) int {
	n, err := strconv.Atoi(p.arg(1))
	if err != nil {
		return p.report(err)
	}
	for range n {
		if _, err := p.Spawn(true, "hold"); err != nil {
			return p.report(err)
		}
	}
	return 0
}
