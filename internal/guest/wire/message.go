package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// A Request begins a call.
type Request struct {
	Op     string          `json:"op"`
	Params json.RawMessage `json:"params,omitempty"`
}

// An Answer is one of those to a call.
type Answer struct {
	Error  *Failure        `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// What can be called. The last one is called by the agent.
const (
	OpPing     = "ping"
	OpInfo     = "info"     // Info
	OpSetup    = "setup"    // Setup
	OpSpawn    = "spawn"    // Program; notes: Started, Exited
	OpAttach   = "attach"   // Attach; as spawn
	OpPrograms = "programs" // []Running
	OpForget   = "forget"   // Target
	OpSignal   = "signal"   // Target
	OpResize   = "resize"   // Target
	OpFlush    = "flush"    // Target; Flushed
	OpKill     = "kill"
	OpAlive    = "alive" // bool
	OpFreeze   = "freeze"
	OpContinue = "continue"
	OpHalt     = "halt"
	OpStats    = "stats"   // Stats
	OpModule   = "module"  // Path
	OpMount    = "mount"   // Mount
	OpUnmount  = "unmount" // Path
	OpRoot     = "root"    // Path
	OpStat     = "stat"    // Path; FileInfo of what it leads to
	OpLstat    = "lstat"   // Path; FileInfo
	OpReadLink = "readlink"
	OpList     = "list"   // Path; a FileInfo in JSON for each entry, as a stream
	OpOpen     = "open"   // Path; note: FileInfo; its contents as a stream
	OpGet      = "get"    // Path; a tar stream
	OpPut      = "put"    // Put; from a tar stream
	OpWrite    = "write"  // File
	OpLookup   = "lookup" // Who; Person
	OpHosts    = "hosts"  // Hosts
	OpListen   = "listen"
	OpClock    = "clock"    // Clock
	OpHostname = "hostname" // Path: the name
	OpNetwork  = "network"  // Network
	OpSeed     = "seed"     // Seed
	OpIdentity = "identity" // Identity
	OpSync     = "sync"
	OpBatch    = "batch"    // Batch; Batched
	OpPowerOff = "poweroff" // PowerOff
	OpAccept   = "accept"   // Accepted; both ways
)

// A Shape says which streams a call has, a bit each: those to whoever serves it,
// and those back.
type Shape struct {
	There, Back uint8
	// Carried says that whoever serves the call brings the outlets: see Call.Carry.
	Carried bool
}

func (s Shape) toOpener(n int) bool   { return s.Back&(1<<n) != 0 }
func (s Shape) fromOpener(n int) bool { return s.There&(1<<n) != 0 }

// Shapes are the calls that have streams. It is never changed.
var Shapes = map[string]Shape{
	OpSpawn: {There: 1, Back: 2 | 4}, OpAttach: {There: 1, Back: 2 | 4, Carried: true},
	OpList: {Back: 2}, OpOpen: {Back: 2}, OpGet: {Back: 2}, OpPut: {There: 1},
	OpAccept: {There: 1, Back: 2},
}

// Info is what an agent says of itself and of its kernel.
type Info struct {
	Version string `json:"version"` // the agent's
	Kernel  string `json:"kernel"`  // its release
	PID     int    `json:"pid"`     // 1: it is the guest's init
	Cgroups bool   `json:"cgroups"` // programs are bounded and counted
	Root    string `json:"root"`    // as OpRoot has set it
}

// Setup says how every program runs. It is done once, before the first.
type Setup struct {
	// User is who programs run as. Nil: root, with all capabilities.
	User *isolate.User `json:"user,omitempty"`
	// Caps are the capabilities, by number, that programs have if User is 0. Anybody
	// else has none.
	Caps []int `json:"caps,omitempty"`
	// Privileged gives programs the machine as it is: root has all capabilities, there
	// are all devices, nothing is hidden or read-only, and programs with set-id bits
	// work. Otherwise they see what a container shows: see OpRoot.
	Privileged bool            `json:"privileged,omitempty"`
	Files      int64           `json:"files,omitempty"` // as isolate.Spec's
	Limits     []isolate.Limit `json:"limits,omitempty"`
	Group      *isolate.Cgroup `json:"group,omitempty"` // nil: nothing is bounded or counted
	// Shm is the size of /dev/shm. 0: 64 MiB.
	Shm caisson.Bytes `json:"shm,omitempty"`
}

// A Program is to be started.
type Program struct {
	Program isolate.Program `json:"program"`
	// Keep has the program, with what is left of its output, outlive the session, to
	// be attached to in another one. All others are killed with their session, or when
	// their call is given up.
	Keep bool `json:"keep,omitempty"`
}

// Started is the first note of a program's call.
type Started struct {
	ID  uint64 `json:"id"` // the agent's for the program
	PID int    `json:"pid"`
}

// Exited is the second: how it has ended. Its output may go on, and has all been
// sent when the call ends.
type Exited struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Attach goes on with a program that was kept.
type Attach struct {
	ID uint64 `json:"id"`
	// Stdout and Stderr are how many bytes the host has had already.
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// Running is a program that the agent knows.
type Running struct {
	ID    uint64  `json:"id"`
	PID   int     `json:"pid"`
	Began int64   `json:"began"` // nanoseconds since 1970
	Kept  bool    `json:"kept,omitempty"`
	Exit  *Exited `json:"exit,omitempty"`
	// Stdout and Stderr are where attaching can go on at the earliest.
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// A Target is a program and what is done to it.
type Target struct {
	ID     uint64 `json:"id"`
	Signal int    `json:"signal,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
	Rows   uint16 `json:"rows,omitempty"`
}

// Flushed is how many bytes of its output were taken from a program.
type Flushed struct {
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// Stats is what the programs use. What can't be measured is -1.
type Stats struct {
	CPU        int64 `json:"cpu"`       // nanoseconds
	Memory     int64 `json:"memory"`    // bytes
	PeakMemory int64 `json:"peak"`      // bytes
	PIDs       int64 `json:"pids"`      // processes and threads
	OOMKills   int64 `json:"oom_kills"` // since the start
	Throttled  int64 `json:"throttled"` // nanoseconds
}

// A Mount is to be made. Target is made too, where it is missing.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source,omitempty"` // a device, a 9p tag, a folder with flag "bind"
	Target  string   `json:"target"`
	Flags   []string `json:"flags,omitempty"` // ro, nosuid, nodev, noexec, noatime, bind, rec, remount, private, move
	Options string   `json:"options,omitempty"`
	// Wait is how many milliseconds a device that is Source may take to appear.
	Wait int `json:"wait,omitempty"`
}

// A Name is that of a file. It need not be text, so it is sent in base64.
type Name []byte

// A Path names a file of the guest, from its root; or what else has a name.
type Path struct {
	Path   Name   `json:"path"`
	Offset int64  `json:"offset,omitempty"` // where OpOpen begins
	Params string `json:"params,omitempty"` // of a module
}

// A Batch is calls that are made one after the other, up to the first that fails:
// setup, and those about the guest itself that have one answer and no streams.
type Batch struct {
	Calls []Request `json:"calls"`
}

// Batched says what has become of a Batch.
type Batched struct {
	Done  int      `json:"done"`            // how many have not failed
	Error *Failure `json:"error,omitempty"` // of the one that has
}

// A FileInfo is what the agent says about a file.
type FileInfo struct {
	Name    Name   `json:"name"`
	Mode    uint32 `json:"mode"` // an fs.FileMode
	Size    int64  `json:"size"`
	ModTime int64  `json:"mtime"` // nanoseconds since 1970
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
}

// Put says where a tar stream is unpacked.
type Put struct {
	Path Name `json:"path"`
	// Owner is who files belong to, and whose rights count. Nil: the agent's.
	Owner *Owner `json:"owner,omitempty"`
}

// A File is one to be made, in place of what has its name but a folder, with the
// folders above it that are missing. Links in the path to it lead below the root, as
// they do for programs; the name itself is not followed.
type File struct {
	Path Name   `json:"path"` // absolute
	Mode uint32 `json:"mode,omitempty"`
	Data []byte `json:"data,omitempty"`
	// Link makes it a symbolic link, Dir a folder; one that is there already gets mode
	// and owner.
	Link Name `json:"link,omitempty"`
	Dir  bool `json:"dir,omitempty"`
	// Once has it vanish when it is opened: whoever does reads Data and its end.
	Once bool `json:"once,omitempty"`
	// Owner is who it belongs to. Nil: root.
	Owner *Owner `json:"owner,omitempty"`
}

// Who is to be looked up among the users and groups that the root has.
type Who struct {
	User  string `json:"user,omitempty"`  // USER or USER:GROUP, each a name or a number; empty: 0
	Group string `json:"group,omitempty"` // one more
	// Standard takes the place of root, in any spelling. Nil: it may be root.
	Standard *Owner `json:"standard,omitempty"`
}

// A Person is who was found.
type Person struct {
	User isolate.User `json:"user"`
	Name string       `json:"name,omitempty"` // empty: the root does not know the user
	Home string       `json:"home,omitempty"` // absolute; empty: not known
}

// Hosts are names of addresses, for /etc/hosts.
type Hosts struct {
	Hosts []Host `json:"hosts"`
}

// A Host is the names of an address.
type Host struct {
	IP    string   `json:"ip"`
	Names []string `json:"names"`
}

// An Owner is a user and a group.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Listen has the agent listen for the host. The call lasts as long as it does.
type Listen struct {
	Key        uint32           `json:"key"` // the host's, for Accepted
	Sockets    []isolate.Socket `json:"sockets"`
	Everything bool             `json:"everything,omitempty"` // as isolate.Spec's
}

// Accepted is a connection to one of them.
type Accepted struct {
	Key    uint32 `json:"key"`    // Listen's
	Socket int    `json:"socket"` // which of Listen.Sockets
	Local  string `json:"local"`  // IP:PORT that it was meant for
	Remote string `json:"remote"` // IP:PORT that it is from
}

// Clock is the time.
type Clock struct {
	Nanoseconds int64 `json:"ns"` // since 1970, UTC
}

// Seed is new randomness for the kernel of a guest that is a copy; its agent
// becomes another one, see Welcome.Boot.
type Seed struct {
	Bytes []byte `json:"bytes"`
}

// An Identity tells a system from one that it is a copy of.
type Identity struct {
	// MachineID is written to /etc/machine-id: 32 digits of base 16.
	MachineID string `json:"machine_id,omitempty"`
	// HostKeys has an SSH server of the system's get keys of its own.
	HostKeys bool `json:"host_keys,omitempty"`
	// UUID takes the place of what the firmware says that the machine's is.
	UUID string `json:"uuid,omitempty"`
}

// Network says what the guest's devices are to be.
type Network struct {
	Interfaces []Interface `json:"interfaces"`
}

// An Interface is one network device.
type Interface struct {
	// Name is the device's; Hardware, where it is given, finds it by its address, as
	// "52:54:00:12:34:56".
	Name      string   `json:"name,omitempty"`
	Hardware  string   `json:"hardware,omitempty"`
	MAC       string   `json:"mac,omitempty"`       // what Hardware becomes; empty: it stays
	Addresses []string `json:"addresses,omitempty"` // IP/BITS
	Gateways  []string `json:"gateways,omitempty"`  // IP of each default route
	MTU       int      `json:"mtu,omitempty"`       // 0: as it is
	// Routes are all routes of IPv4, in this order; those of Addresses come with
	// them. Empty: the kernel's own of each address.
	Routes []Route `json:"routes,omitempty"`
}

// A Route says by whom a network is reached.
type Route struct {
	To string `json:"to"`           // IP/BITS
	By string `json:"by,omitempty"` // IP; empty: it is on the link itself
}

// PowerOff ends the guest. There is no answer if it works.
type PowerOff struct {
	Reboot bool `json:"reboot,omitempty"`
}

// A Failure is an error as it is sent.
type Failure struct {
	Kind    string `json:"kind,omitempty"`  // a caisson.Kind
	Errno   int    `json:"errno,omitempty"` // of Linux
	Exec    int    `json:"exec,omitempty"`  // 126 or 127: a program can't be executed
	Message string `json:"message"`
}

// Error implements error. What a guest says is cut and has nothing in it that a
// terminal would act on.
func (f *Failure) Error() string { return cut(f.Message) }

// Unwrap returns the error number, if there was one.
func (f *Failure) Unwrap() error {
	if f.Errno <= 0 || f.Errno > 4095 {
		return nil
	}
	return syscall.Errno(f.Errno)
}

// maxText bounds what is shown of a text from the other side.
const maxText = 512

// cut makes a text from the other side fit to be shown.
func cut(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// NewFailure makes an error fit to be sent; none is nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	var sent *Failure
	if errors.As(err, &sent) {
		return sent
	}
	f := &Failure{Message: cut(err.Error())}
	if kind := caisson.KindOf(err); kind != caisson.ErrUnknown {
		f.Kind = kind.Error()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	var x *isolate.ExecError
	if errors.As(err, &x) {
		f.Exec = x.Code
	}
	return f
}

func tooManyCalls(most int) *Failure {
	return &Failure{Kind: caisson.ErrExhausted.Error(), Message: fmt.Sprintf("%d calls are open already", most)}
}
