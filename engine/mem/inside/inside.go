// Package inside offers the conformance suite's inside program as a program of
// engine mem, where there are no processes to observe.
package inside

import (
	"errors"
	"net"
	"strconv"
	"syscall"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
	"github.com/caissonrun/caisson/engine/mem"
)

// Program is the inside program of the conformance suite for mem.
func Program(p *mem.Proc) int { return act.Run(&observer{p}, p.Args()[1:]) }

// An observer is the act.World of a program in mem.
type observer struct{ *mem.Proc }

var _ act.World = (*observer)(nil)

func (o *observer) Spawn(opts act.SpawnOptions, args []string) (act.Child, error) {
	child, err := o.Proc.Spawn(opts.Quiet, append([]string{o.Args()[0]}, args...)...)
	if err != nil {
		return nil, err
	}
	return &descendant{o.Proc, child}, nil
}

type descendant struct{ parent, child *mem.Proc }

func (d *descendant) Wait() error {
	if code, signal := d.parent.Wait(d.child); code != 0 || signal != 0 {
		return errors.New("the child failed")
	}
	return nil
}

// Dial finds nobody but sandboxes that share the network, and a gateway.
func (o *observer) Dial(network, address string) (net.Conn, error) {
	return o.Connect(network, address)
}

// Steal listens as any program does: there is no way to share an address.
func (o *observer) Steal(_, address string) error {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	return o.Serve(port, "stolen")
}

func (o *observer) Serve(port int, word string) error {
	l, err := o.Listen(port)
	if err != nil {
		return err
	}
	go act.Answer(l, word)
	return nil
}

// Loopback works, as far as anybody can tell.
func (o *observer) Loopback() error { return nil }

// Memory finds nothing: the program has none of its own.
func (o *observer) Memory(string) ([]string, error) { return nil, nil }

// Attempt is denied: a Go function has no way to try.
func (o *observer) Attempt(string) error { return syscall.EPERM }

func (o *observer) Facts() (*act.Facts, error) {
	return &act.Facts{
		PID: o.PID(), Args: o.Args(), Env: o.Environ(), Dir: o.Getwd(), Hostname: o.Hostname(),
		FDs: map[int]string{0: "stdin", 1: "stdout", 2: "stderr"},
	}, nil
}
