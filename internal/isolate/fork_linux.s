// The runtime's fork hooks are declared in fork_linux.go without a body, which
// the compiler accepts in a package that has an assembly file only.
