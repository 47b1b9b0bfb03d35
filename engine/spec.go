package engine

import (
	"encoding/json"

	"github.com/caissonrun/caisson"
)

// A Spec says what Create has to make. The executor has resolved it: names are
// looked up, paths on the host are absolute and exist, defaults are filled in.
type Spec struct {
	// ID names the sandbox, uniquely on this host: [a-z0-9-], at most 60 long.
	ID string `json:"id"`
	// Dir is a folder of the caller's that exists, is empty and private to
	// this sandbox. The engine keeps its handle and records there, and nothing
	// that the task can reach. The caller removes it after Destroy.
	Dir string `json:"dir"`
	// Log is the file that the program's output is appended to, in the format
	// of package tasklog. It is made if it does not exist.
	Log string `json:"log"`
	// Task, Attempt and Step are for labels and messages.
	Task    string `json:"task"`
	Attempt int    `json:"attempt"`
	Step    string `json:"step"`

	// Exactly one form of program: Args, Run, an image's own, Module, Machine
	// or Options alone. Arguments and variables are UTF-8 without NUL; see
	// Validate.
	Args []string `json:"args,omitempty"` // argv, entrypoint included
	Run  string   `json:"run,omitempty"`  // a script for the engine's shell
	// ImageEntrypoint says that Args are put behind the entrypoint of Image: the
	// task names none of its own.
	ImageEntrypoint bool `json:"image_entrypoint,omitempty"`
	// Input is what the program reads from its standard input, and then its end
	// (Features.Input). Empty: the end at once. The program need not read it.
	Input []byte `json:"input,omitempty"`
	// Env is the program's whole environment besides what the engine documents
	// that it adds (PATH, HOME, USER, TMPDIR where they are missing).
	Env     map[string]string `json:"env,omitempty"`
	Workdir string            `json:"workdir,omitempty"` // absolute, inside; empty: see docs/task.md
	User    string            `json:"user,omitempty"`    // "uid[:gid]" or names; empty: the engine's default
	Group   string            `json:"group,omitempty"`
	// Root permits the program to be root inside where the engine's configuration
	// does not: the operator has said so for this one. No document can set it.
	Root bool `json:"root,omitempty"`

	Image  string  `json:"image,omitempty"`  // for engines that pull by themselves
	RootFS *RootFS `json:"rootfs,omitempty"` // for engines with Features.RootFS
	// Module is the path on the host of a WebAssembly module, which the caller
	// has fetched if it was elsewhere. Args are those after its name.
	Module  string           `json:"module,omitempty"`
	Machine *caisson.Machine `json:"machine,omitempty"`
	// MachineImage is the disk of Machine, ready to be used.
	MachineImage *MachineImage     `json:"machine_image,omitempty"`
	Registry     *caisson.Registry `json:"registry,omitempty"`
	// Options is what only this engine knows; it matches Features.OptionsSchema.
	Options json.RawMessage `json:"options,omitempty"`

	// Work is the host's folder that appears as caisson.WorkDir inside,
	// readable and writable for the program's user. Its files belong on disk
	// to WorkOwner, whatever user ids the sandbox has of its own. Engines that
	// can't share folders are given its contents by the executor through Files.
	Work      string `json:"work,omitempty"`
	WorkOwner Owner  `json:"work_owner"`
	// Tmp is an empty host folder that appears as /tmp (mode 1777). It lies on
	// the same limited storage as Work. Empty: the engine makes a tmpfs. With
	// Features.Disk /tmp may be on the sandbox's own disk in any case.
	Tmp string `json:"tmp,omitempty"`
	// WorkLimited says that the caller bounds Work and Tmp to Limits.Disk. The
	// engine must bound all other places that the task can write to, or refuse.
	WorkLimited bool     `json:"work_limited,omitempty"`
	Mounts      []Mount  `json:"mounts,omitempty"`
	Secrets     []Secret `json:"-"` // never on disk

	Network caisson.Network `json:"network,omitzero"`
	Ports   []caisson.Port  `json:"ports,omitempty"`
	DNS     *caisson.DNS    `json:"dns,omitempty"`
	// SharedNetwork is the NetworkSpec.Dir of a network that the engine has made
	// (Networker): the sandbox is put on it. Network and DNS are then those that
	// it was made with. Empty: the sandbox has a network of its own.
	SharedNetwork string `json:"shared_network,omitempty"`
	// Names are those by which others on SharedNetwork reach this sandbox.
	Names []string `json:"names,omitempty"`
	// Gateway is a way out besides Network. Nil: none.
	Gateway    *Gateway          `json:"gateway,omitempty"`
	Displays   []caisson.Display `json:"displays,omitempty"`
	Hostname   string            `json:"hostname,omitempty"`
	Privileged bool              `json:"privileged,omitempty"`
	Devices    []caisson.Device  `json:"devices,omitempty"`
	GPUs       string            `json:"gpus,omitempty"`

	Limits  caisson.Limits   `json:"limits,omitzero"`
	Timeout caisson.Duration `json:"timeout,omitempty"` // from Start; monotonic
	// StopSignal is sent first by a Stop and when time is up. Zero: SIGTERM.
	StopSignal int `json:"stop_signal,omitempty"`
	// Grace is what the timeout gives between StopSignal and the kill.
	Grace caisson.Duration `json:"grace,omitempty"`
	// Linger is how long processes that the program leaves behind may hold its
	// output after its end. Zero: they are killed at once.
	Linger caisson.Duration `json:"linger,omitempty"`

	// Keep is how long after the program's end the sandbox can still be entered
	// (Features.Keep): what else runs in it is halted, not killed, and Exec and
	// Files find it exactly so. The engine ends it when the time is over, with
	// nobody else alive; Destroy ends it at once. Zero: the end is the end.
	Keep caisson.Duration `json:"keep,omitempty"`

	// Forkable says that Snapshot will be asked for: all that a copy must have of its
	// own is to be inside of the sandbox.
	Forkable bool `json:"forkable,omitempty"`
	// Snapshot is a folder that a Snapshotter of this engine has written, for a
	// sandbox with the same image, machine, options and limits (Features.Snapshot): this
	// one goes on from there. Start then finds the program running, and Log begins with
	// what it prints from there on. The folder may be removed once Create has returned.
	// Empty: the sandbox is new.
	Snapshot string `json:"snapshot,omitempty"`

	// OnExit is a command (argv) that is started once on the host, with
	// OnExitEnv as its environment, after the program's end is durable, if no
	// process that called Create, Start or Wait for this sandbox is alive to
	// see it. Empty: nothing is started.
	OnExit    []string `json:"on_exit,omitempty"`
	OnExitEnv []string `json:"on_exit_env,omitempty"`
}

// OptionsAlone reports whether the task names no program at all: what is to be
// done stands in Options.
func (s *Spec) OptionsAlone() bool {
	body := s.Image != "" || s.RootFS != nil || s.Module != "" || s.Machine != nil
	return len(s.Args) == 0 && s.Run == "" && !body && len(s.Options) > 0
}

// A RootFS is an image's root file system, unpacked on this host. Nothing in it
// is trusted: any path in it may be a link to anywhere.
type RootFS struct {
	// Path is the folder that becomes the root, absolute and without links. Its
	// files have the image's ids on disk; where the image was unpacked without
	// root they all belong to the caller.
	Path string `json:"path"`
	// Changes is an empty folder of the caller's. If it is set, many sandboxes
	// share Path and nobody ever writes to it: what this one writes goes to
	// Changes, by an overlay (Features.Overlay). It lies on the same limited
	// storage as Work, and its own file system takes an overlay's upper folder.
	// Empty: Path belongs to this sandbox alone and is written directly.
	// With Disk it is where the engine keeps the disk that the sandbox writes to.
	Changes string `json:"changes,omitempty"`
	// Image is its name in the task, for people.
	Image string `json:"image,omitempty"`
	// Disk is a raw disk with the root file system as ext4, for engines with
	// Features.Disk. Many sandboxes share it and nobody writes to it. Path is then the
	// folder that it was made of, for looking into it: owners and modes are the disk's.
	Disk string `json:"disk,omitempty"`
}

// A MachineImage is the disk of a Machine, fetched and unpacked on this host.
// Nothing in it is trusted; what is said of it here was checked.
type MachineImage struct {
	// Disk is the file that nobody may write to, and Format raw or qcow2. What a
	// qcow2's header says lies below it is not followed.
	Disk   string `json:"disk"`
	Format string `json:"format"`
	// Layer is a qcow2 file that lies on Disk, which every sandbox gets a copy of.
	// Empty: each begins with an empty one.
	Layer string        `json:"layer,omitempty"`
	Size  caisson.Bytes `json:"size"` // of the disk that the guest sees
	// Machine is the image's own wish (machine.json), under what the task says.
	Machine json.RawMessage `json:"machine,omitempty"`
	// Changes is an empty folder of the caller's for what this sandbox writes. It
	// lies on the same limited storage as Work.
	Changes string `json:"changes"`
}

// An Owner is who files belong to on disk.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// The kinds of Mount that engines know. Volumes, caches and custom mounts are
// binds of what their mounter has made ready.
const (
	MountBind  = "bind"
	MountTmpfs = "tmpfs"
)

// A Mount is a place in the sandbox. Mounts are made in the order of the list;
// a target may lie below an earlier one's.
type Mount struct {
	Type     string `json:"type"`               // MountBind or MountTmpfs
	Source   string `json:"source,omitempty"`   // of a bind: absolute path of a folder or file on the host
	Target   string `json:"target"`             // absolute, clean path inside
	ReadOnly bool   `json:"readonly,omitempty"` // also for root inside, also after remounting
	// Owned says that the source's files belong on disk to Spec.WorkOwner and
	// must be writable as Work is. Otherwise ids pass unchanged.
	Owned bool          `json:"owned,omitempty"`
	Size  caisson.Bytes `json:"size,omitempty"` // of a tmpfs; counted to the memory limit
	Mode  uint32        `json:"mode,omitempty"` // of a tmpfs's root; 0: 01777
}

// A Secret is a value for the program alone. The engine hands it over without
// it ever being on disk or in an argument list, and its value is redacted in
// the log together with its base64, URL and JSON forms.
type Secret struct {
	Name  string
	Value []byte
	// As is caisson.SecretEnv or SecretFile; empty: only redact it.
	As   string
	Once bool
	// Placeholder says that Value only stands for a secret that never enters the
	// sandbox: it may be seen in the log.
	Placeholder bool
}

// A Handle is what an engine writes to Spec.Dir/handle.json before it makes
// anything: enough for Recover and Sweep of a later process.
type Handle struct {
	Version int             `json:"version"` // HandleVersion
	Engine  string          `json:"engine"`
	ID      string          `json:"id"`
	BootID  string          `json:"boot_id"` // of the host when it was made
	Data    json.RawMessage `json:"data,omitempty"`
}

// HandleVersion is the version of the handles that this code writes. Older
// ones are understood, newer ones are refused.
const HandleVersion = 1

// HandleFile is the name of the handle's file in Spec.Dir.
const HandleFile = "handle.json"
