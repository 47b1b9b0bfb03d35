package mem

import "syscall"

// The signals that have a meaning here, by their Linux numbers.
const (
	sigHup   = 1
	sigInt   = 2
	sigQuit  = 3
	sigAbrt  = 6
	sigKill  = 9
	sigTerm  = 15
	sigChld  = 17
	sigCont  = 18
	sigStop  = 19
	sigTstp  = 20
	sigUrg   = 23
	sigWinch = 28
)

// deliver sends a signal to p. box.mu is held.
func (p *Proc) deliver(n int) {
	switch n {
	case sigKill:
		p.kill(n)
		return
	case sigStop:
		p.stopped = true
		return
	case sigCont:
		p.stopped = false
		p.box.broadcast()
	}
	if handler := p.handlers[n]; handler != nil {
		select {
		case handler <- n:
		default:
		}
		return
	}
	if p.ignored[n] {
		return
	}
	switch n {
	case sigChld, sigCont, sigUrg, sigWinch:
	case sigTstp:
		p.stopped = true
	default:
		p.kill(n)
	}
}

// Notify has signals sent to the channel it returns, in place of what they do
// otherwise. A channel that nobody reads loses signals after the first few.
func (p *Proc) Notify(signals ...int) <-chan int {
	p.checkpoint()
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	ch := make(chan int, 16)
	for _, n := range signals {
		p.handlers[n] = ch
	}
	return ch
}

// Ignore drops signals.
func (p *Proc) Ignore(signals ...int) {
	p.checkpoint()
	p.box.mu.Lock()
	defer p.box.mu.Unlock()
	for _, n := range signals {
		p.ignored[n] = true
	}
}

// Raise sends a signal to this process.
func (p *Proc) Raise(n int) error {
	p.checkpoint()
	if n < 1 || n > 64 {
		return syscall.EINVAL
	}
	p.box.mu.Lock()
	p.deliver(n)
	p.box.mu.Unlock()
	p.checkpoint()
	return nil
}
