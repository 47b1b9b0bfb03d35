package isolate

import "github.com/caissonrun/caisson"

// A Spec says what Start makes. Whoever builds it has decided what is allowed:
// Start enforces, it has no policy. The zero value of a field means "not asked
// for", "the default" or "no limit".
type Spec struct {
	// ID names the sandbox in messages.
	ID string `json:"id"`

	// None asks for no isolation: programs are plain children of the caller,
	// each in its own session. Only User, Cgroup, Files and Limits count then.
	None bool `json:"none,omitempty"`
	// Machine says, with None, that the caller is the agent of a machine of its own.
	// Caps counts then, too.
	Machine *Machine `json:"machine,omitempty"`

	// UIDs and GIDs are the maps of the sandbox's user namespace. As root each
	// maps 0, for init, and the ids of User. Without root each maps exactly one
	// id, User's, to the caller's.
	UIDs []IDMap `json:"uids,omitempty"`
	GIDs []IDMap `json:"gids,omitempty"`
	// User is who programs run as, in ids of the inside. With None, nil means
	// the caller; otherwise nil means 0:0.
	User *User `json:"user,omitempty"`

	// Hostname is the name in the sandbox's own UTS namespace; empty: ID.
	Hostname string `json:"hostname,omitempty"`
	// HostNetwork shares the caller's network. Otherwise there is a loopback
	// device and nothing else.
	HostNetwork bool `json:"host_network,omitempty"`
	// NetNS is the path of a network namespace that the sandbox is put into in
	// place of one of its own. It belongs to the caller's user namespace and not
	// to the sandbox's: whoever is root inside has no rights over it, and can
	// change neither its devices nor its filters. It is the caller's to keep,
	// and only root can enter it.
	NetNS string `json:"net_ns,omitempty"`
	// Sockets listen in the sandbox's network from Start on, and are Box.Sockets.
	// They need another one than the host's.
	Sockets []Socket `json:"sockets,omitempty"`
	// Everything makes every address, of IPv4 and of IPv6, one of the sandbox's
	// own: what is sent to anywhere arrives at a socket that listens at its port
	// on every address, and is refused where there is none. Only for a network
	// that has a loopback device and no other.
	Everything bool `json:"everything,omitempty"`
	// Nested lets programs make user namespaces of their own. Otherwise even
	// without Seccomp none can be made.
	Nested bool `json:"nested,omitempty"`

	// RootFS is a folder of the host that becomes the root, by a path without
	// symbolic links. Empty: the root is a tmpfs, read-only once Entries and the targets of Mounts are in it.
	RootFS string `json:"rootfs,omitempty"`
	// Changes is a folder of the host, empty and by a path without symbolic
	// links, that takes what the sandbox writes: RootFS then is the lower layer
	// of an overlay, mounted inside only, and nobody writes to it. As root the
	// folder comes to belong to the inside's 0. See ErrNoOverlay.
	Changes string `json:"changes,omitempty"`
	// RootReadOnly makes RootFS read-only once the targets of Mounts exist.
	RootReadOnly bool `json:"root_readonly,omitempty"`
	// RootIDMap says that RootFS has ids of the inside on disk, and is shown
	// through an idmapped mount. See ErrNoIdmap.
	RootIDMap bool `json:"root_idmap,omitempty"`
	// Entries are folders, links and small files of the root, made in order;
	// parent folders come by themselves. In a RootFS, files are laid over what
	// is there and do not change the folder on disk.
	Entries []Entry `json:"entries,omitempty"`
	// Mounts are made in order, after /proc and /dev. Missing targets are made.
	Mounts []Mount `json:"mounts,omitempty"`
	// Sys mounts a read-only sysfs at /sys. It needs a network of its own.
	Sys bool `json:"sys,omitempty"`
	// Masked paths are hidden, ReadOnlyPaths can't be written. Those that do
	// not exist are skipped. Nil: DefaultMasked and DefaultReadOnly.
	Masked        []string `json:"masked,omitempty"`
	ReadOnlyPaths []string `json:"readonly_paths,omitempty"`
	// Shm bounds /dev/shm, in bytes. Zero: 64 MiB.
	Shm caisson.Bytes `json:"shm,omitempty"`
	// Devices are added to /dev's null, zero, full, random, urandom and tty.
	// They need root.
	Devices []Device `json:"devices,omitempty"`

	// Cgroup bounds and counts the sandbox. Nil: there is no cgroup, and
	// nothing is bounded or measured.
	Cgroup *Cgroup `json:"cgroup,omitempty"`
	// Files is the number of files one process may have open. Zero: 1024, which
	// a program may raise to the caller's limit.
	Files int64 `json:"files,omitempty"`
	// Limits are further limits of each process.
	Limits []Limit `json:"limits,omitempty"`
	// Caps are the capabilities, by number, in the sandbox's own user namespace,
	// that programs have if User is 0. Empty: none.
	Caps []int `json:"caps,omitempty"`
	// Sysctls are written below /proc/sys, by their names with dots. Only those
	// of the sandbox's own namespaces can be.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Seccomp puts programs under the filter of package seccomp.
	Seccomp bool `json:"seccomp,omitempty"`
	// Landlock restricts writing to the writable mounts, where the kernel has
	// Landlock; where it has not, Start fails.
	Landlock bool `json:"landlock,omitempty"`

	// Runtime is an OCI runtime that makes the sandbox. Nil: Start does.
	Runtime *Runtime `json:"runtime,omitempty"`
}

// A Machine is one whose programs are the caller's.
type Machine struct {
	// Mounts is the path of a mount namespace in which programs run, such as a
	// descriptor's below /proc. Empty: the caller's.
	Mounts string `json:"mounts,omitempty"`
	// Privileged has root keep all capabilities, and programs with set-id bits work.
	Privileged bool `json:"privileged,omitempty"`
}

// The kinds of Runtime.
const (
	// Crun and Runc isolate by the kernel's means, as this package does. Anything
	// that has their command line is tried as Runc.
	Crun = "crun"
	Runc = "runc"
	// Runsc is gVisor: programs run on a kernel of its own, which no descriptors
	// can be handed to.
	Runsc = "runsc"
)

// A Runtime is an OCI runtime of this host. Caisson's init is pid 1 of what it
// makes, and starts programs there as it does in a sandbox of Start's own.
type Runtime struct {
	// Path is the program's file, absolute and without symbolic links.
	Path string `json:"path"`
	// Kind is Crun, Runc or Runsc; empty: Runc.
	Kind string `json:"kind,omitempty"`
	// Flags are put before the runtime's subcommand.
	Flags []string `json:"flags,omitempty"`
	// Log is a file, made if need be, that takes what the runtime says. Empty:
	// that shows in errors only.
	Log string `json:"log,omitempty"`
}

// RuntimeItem begins the Item of errors that are a Runtime's.
const RuntimeItem = "runtime "

// OverlayWork is the folder in Spec.Changes that is the kernel's own. It may
// hold a folder that nobody may enter; it is removed with the sandbox.
const OverlayWork = "work"

// An IDMap maps Size ids from Inside on to those from Host on.
type IDMap struct {
	Inside int `json:"inside"`
	Host   int `json:"host"`
	Size   int `json:"size"`
}

// A User is who programs run as.
type User struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"` // supplementary; ignored without root
}

// An Entry is one thing in the root: a link if Link is set, a folder if Dir
// is, otherwise a file.
type Entry struct {
	Path     string `json:"path"` // absolute
	Link     string `json:"link,omitempty"`
	Dir      bool   `json:"dir,omitempty"`
	Contents []byte `json:"contents,omitempty"`
	Mode     uint32 `json:"mode,omitempty"`  // permission bits; 0: 0755 or 0644
	Owned    bool   `json:"owned,omitempty"` // belongs to User; otherwise to 0:0
}

// MaxSockets is how many Sockets a sandbox can have, so that all of them can be
// handed over at once.
const MaxSockets = 200

// A Socket is one at which something outside of the sandbox serves it.
type Socket struct {
	UDP bool `json:"udp,omitempty"`
	// IP has 4 or 16 bytes. None: every address, of IPv4 and of IPv6.
	IP   []byte `json:"ip,omitempty"`
	Port int    `json:"port"`
}

// The kinds of Mount.
const (
	Bind  = "bind"
	Tmpfs = "tmpfs"
)

// A Mount is a place in the sandbox. All are nosuid and nodev.
type Mount struct {
	Type string `json:"type"` // Bind or Tmpfs
	// Source of a bind is an absolute host path of a folder or a file, bound
	// with everything mounted below it. No part of it may be a symbolic link:
	// it is resolved, checked, and then given here, so that a link put there
	// after the check is refused.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"`             // absolute, inside
	ReadOnly bool   `json:"readonly,omitempty"` // with everything below
	// Owner says who a bind's files belong to on disk. They then appear as
	// User's, by an idmapped mount; the ids of all other files are unknown
	// inside. Nil: ids pass unchanged. See ErrNoIdmap. Without root it is
	// ignored: files belong to the caller, and so they do inside.
	Owner *User         `json:"owner,omitempty"`
	Size  caisson.Bytes `json:"size,omitempty"` // of a tmpfs
	Mode  uint32        `json:"mode,omitempty"` // of a tmpfs's root; 0: 01777
}

// A Device is a device node of the host.
type Device struct {
	Source   string `json:"source"` // absolute host path
	Target   string `json:"target"` // absolute, below /dev
	ReadOnly bool   `json:"readonly,omitempty"`
}

// A Limit is a limit of one process's resources.
type Limit struct {
	Resource int    `json:"resource"` // RLIMIT_*
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// A Cgroup is a control group that Start makes and Close removes.
type Cgroup struct {
	Name   string        `json:"name"` // as for cgroup.Create
	CPUs   caisson.CPUs  `json:"cpus,omitempty"`
	Memory caisson.Bytes `json:"memory,omitempty"`
	PIDs   int64         `json:"pids,omitempty"`
}

// DefaultMasked are the paths that no task sees.
var DefaultMasked = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
	"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
	"/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap",
}

// DefaultReadOnly are the paths that no task writes.
var DefaultReadOnly = []string{
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
}
