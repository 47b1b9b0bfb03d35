package mem

// A Program is what mem runs. It returns the exit code. It ends early when
// the process is killed: then every method of p panics with a private value
// that the engine catches.
type Program func(p *Proc) int

// A Proc is a running program.
type Proc struct{}
