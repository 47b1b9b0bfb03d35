// Package seccomp refuses system calls that a sandboxed program has no need
// for, with a filter of Caisson's own making in the spirit of the default
// profile that container engines share: an allow list, for amd64 and arm64.
//
// What is known and not on the list fails with EPERM, as it would for a
// program without privileges. What this package does not know, and clone3,
// whose flags no filter can see, fail with ENOSYS, so that libraries fall back
// to what they used before there was such a call. Calls of another
// architecture kill the process: the numbers would mean something else.
//
// The filter adds to what namespaces, capabilities and permissions refuse
// already. It needs Linux 4.14, for killing whole processes; before 4.8 a tracer
// could even have got around it.
package seccomp
