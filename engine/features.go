package engine

import (
	"encoding/json"

	"github.com/caissonrun/caisson"
)

// Features are the facts that Probe has found: what this engine can do here
// and now. Choices between engines are made by these, never by name.
type Features struct {
	// Usable says that sandboxes can be made at all.
	Usable bool `json:"usable"`
	// Version names the technology behind it, for people: "crun 1.8.1".
	Version string `json:"version,omitempty"`
	// MaxSandboxes is how many may live at once; 0: only the host limits it.
	MaxSandboxes int `json:"max_sandboxes,omitempty"`

	// The forms of task that it accepts.
	Command bool `json:"command"` // args
	Script  bool `json:"script"`  // run
	Image   bool `json:"image"`   // pulls images by itself
	RootFS  bool `json:"rootfs"`  // runs a root file system that the executor made ready
	Overlay bool `json:"overlay"` // RootFS.Changes can be set
	Disk    bool `json:"disk"`    // with RootFS: as RootFS.Disk
	// ImageOnly says that every program needs an image.
	ImageOnly bool `json:"image_only,omitempty"`
	Module    bool `json:"module"` // with Args as its arguments
	Machine   bool `json:"machine"`
	Options   bool `json:"options"` // a task may consist of options alone
	// OptionsOnly says that a task must consist of options alone, with the work
	// folder's files, limits and times: the program is the operator's, and
	// nobody else has a say in how it runs.
	OptionsOnly bool `json:"options_only,omitempty"`
	Input       bool `json:"input"` // Spec.Input; no task asks for it, engines do

	// ShareWork says that Spec.Work and binds are the host's own folders, live
	// in both directions.
	ShareWork bool `json:"share_work"`
	// PrivateDisk says that under a disk limit a work folder is not shared all
	// the same: Spec.Work and Spec.Tmp are not set then, the sandbox has folders
	// of its own that the engine bounds, and files are exchanged by Filer.
	PrivateDisk bool `json:"private_disk,omitempty"`

	Limits   LimitFeatures   `json:"limits"`
	Networks NetworkFeatures `json:"networks"`
	Mounts   MountFeatures   `json:"mounts"`

	// Fields of a task that it can do.
	User       bool `json:"user"`
	Hostname   bool `json:"hostname"`
	Privileged bool `json:"privileged"`
	Devices    bool `json:"devices"`
	GPUs       bool `json:"gpus"`
	Registry   bool `json:"registry"`
	Ports      bool `json:"ports"`
	DNS        bool `json:"dns"`
	Secrets    bool `json:"secrets"`

	// Screen says that a sandbox can have a screen of its own, one.
	// DisplayServers says that a display can be a VNC server of the task's; one at
	// a port wants Networks.Inside, too.
	Screen         bool `json:"screen"`
	DisplayServers bool `json:"display_servers"`

	// Optional interfaces. The Sandbox (or, where it says so, the Engine or
	// Process) has the interface if and only if the field is set.
	Exec     bool `json:"exec"`     // Execer
	Terminal bool `json:"terminal"` // Execer with Terminal
	Files    bool `json:"files"`    // Filer
	Stats    bool `json:"stats"`    // StatsReader
	Pause    bool `json:"pause"`    // Pauser
	Snapshot bool `json:"snapshot"` // Snapshotter, and Spec.Snapshot
	Displays bool `json:"displays"` // Displayer, by Screen or DisplayServers
	Gateway  bool `json:"gateway"`  // Gatekeeper
	Keep     bool `json:"keep"`     // Spec.Keep: Exec after the program's end
	Prepare  bool `json:"prepare"`  // Preparer, on the Engine
	Warm     bool `json:"warm"`     // Assigner, on the Engine
	Events   bool `json:"events"`   // EventSource

	// Fork is what a copy of a running sandbox has of it: ForkMemory or ForkDisk.
	// Empty: there can be none.
	Fork string `json:"fork,omitempty"`

	// Isolation lists what separates the task from the host, such as "pid
	// namespace", in the words of docs/engines.md.
	Isolation []string `json:"isolation,omitempty"`
	// Missing lists what could be there and is not.
	Missing []Missing `json:"missing,omitempty"`

	// JSON Schemas (draft 2020-12) of the engine's section of the
	// configuration and of a task's options; nil: none.
	ConfigSchema  json.RawMessage `json:"config_schema,omitempty"`
	OptionsSchema json.RawMessage `json:"options_schema,omitempty"`
	// Doc is the engine's documentation for users, in Markdown.
	Doc string `json:"doc,omitempty"`
}

// What a copy of a running sandbox has of it.
const (
	// ForkMemory says that programs go on in the copy, with the files that there were
	// at that time (Snapshot).
	ForkMemory = "memory"
	// ForkDisk says that the copy has the files of the work folder, and its program
	// begins anew. The executor does it.
	ForkDisk = "disk"
)

// LimitFeatures tells which limits can be enforced.
type LimitFeatures struct {
	CPUs   bool `json:"cpus"`
	Memory bool `json:"memory"`
	PIDs   bool `json:"pids"`
	Disk   bool `json:"disk"`
	Log    bool `json:"log"`
	Files  bool `json:"files"`
}

// NetworkFeatures tells which networks a sandbox can have.
type NetworkFeatures struct {
	None    bool `json:"none"`
	Default bool `json:"default"`
	Host    bool `json:"host"`
	Allow   bool `json:"allow"`
	Named   bool `json:"named"`
	// Shared says that several sandboxes can be on one network: Networker, on
	// the Engine.
	Shared bool `json:"shared"`
	// Inside says that a process of this host can serve a sandbox on its own
	// loopback device: NetworkLocator, on the Sandbox.
	Inside bool `json:"inside"`
}

// MountFeatures tells which mounts a sandbox can have.
type MountFeatures struct {
	Bind     bool `json:"bind"`
	Tmpfs    bool `json:"tmpfs"`
	ReadOnly bool `json:"readonly"`
}

// Missing is something that this host does not give.
type Missing struct {
	What string `json:"what"`         // "memory limit"
	Why  string `json:"why"`          // "no memory controller is delegated to this user"
	Do   string `json:"do,omitempty"` // what the operator can do about it
}

// Check returns nil if f promises everything that spec asks for. Otherwise it
// returns one error of kind ErrUnsupported that names every field at fault,
// with the reason from f.Missing where there is one. Engines call it first
// thing in Create; the executor calls it to choose an engine.
func (f *Features) Check(spec *Spec) error {
	return newRefusal(f, spec).err()
}

var _ = caisson.ErrUnsupported
