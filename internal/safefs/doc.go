// Package safefs is the only way to touch a path that a task could have made.
//
// A [Root] is a folder, held by a descriptor. Names are relative to it, with
// slashes, clean and without ".."; any other byte but NUL may stand in them.
// No element of a name may be a symbolic link, and by default none may be a
// mount point: whatever a task put there, and whenever it swaps it, an
// operation acts on what is really below the folder, or fails. Only [FS]
// follows links, and then as if the folder were the root of the file system.
//
// On Linux openat2(2) does the resolving. Where it is missing (kernels before
// 5.6, other systems, strict seccomp filters) names are resolved element by
// element with descriptors, which is slower and as safe, except that a mount
// point is then told by its device number only.
//
// Nothing here opens a FIFO, a socket or a device, so nothing hangs on them.
// Trees may be of any depth: at most a few dozen descriptors are in use.
package safefs
