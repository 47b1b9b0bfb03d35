package isolate

import "os"

// OpenTerminal makes a terminal that stands for one elsewhere, with the size that p
// asks for: it changes nothing of what passes through it. Both sides are the
// caller's.
func OpenTerminal(p *Program) (master, slave *os.File, err error) {
	m, s, err := openTerminal(p, os.Getuid(), os.Getgid(), false)
	if err != nil {
		return nil, nil, err
	}
	if err := rawMode(s); err != nil {
		closeAll([]int{m, s})
		return nil, nil, err
	}
	return terminalFile(m), terminalFile(s), nil
}
