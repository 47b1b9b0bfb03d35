package caisson

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"
)

// DocumentVersion is the version of the task document that this code reads.
const DocumentVersion = 1

// WorkDir is the work folder's path inside of every sandbox.
const WorkDir = "/work"

// MaxOutput is the most bytes that $CAISSON_OUTPUT may hold.
const MaxOutput = 64 * KiB

// DefaultGrace is what a program has between its stop signal and the kill
// where the task says nothing else.
const DefaultGrace = Duration(10 * time.Second)

// A Task is what is submitted and reported on: one document. Field names and
// meanings are those of docs/task.md; package document reads and checks them.
type Task struct {
	Version int    `json:"version,omitempty"` // DocumentVersion, or 0 for the newest
	Name    string `json:"name,omitempty"`
	// Engine names the engine. Empty means the first usable one in
	// [executor] prefer that accepts all the task asks for.
	Engine string `json:"engine,omitempty"`

	Program

	// Component is a run of a data component, in place of a program.
	Component *ComponentRun `json:"component,omitempty"`

	Module  string   `json:"module,omitempty"`  // a WebAssembly module: path, URL or OCI artifact
	Machine *Machine `json:"machine,omitempty"` // a virtual machine

	Group      string           `json:"group,omitempty"`       // a name or id, in addition to user's
	Hostname   string           `json:"hostname,omitempty"`    // empty: the engine's choice
	StopSignal string           `json:"stop_signal,omitempty"` // such as "TERM", the default
	Privileged bool             `json:"privileged,omitempty"`
	Devices    []Device         `json:"devices,omitempty"`
	GPUs       string           `json:"gpus,omitempty"` // "all", a count, or "device=ID,ID", as in Docker
	Registry   *Registry        `json:"registry,omitempty"`
	Inputs     []Input          `json:"inputs,omitempty"`
	Outputs    []Output         `json:"outputs,omitempty"`
	Mounts     []Mount          `json:"mounts,omitempty"`
	Network    Network          `json:"network,omitzero"`
	Ports      []Port           `json:"ports,omitempty"`
	DNS        *DNS             `json:"dns,omitempty"`
	Proxies    map[string]Proxy `json:"proxies,omitempty"` // by name, [a-z]{3,22}
	Displays   []Display        `json:"displays,omitempty"`
	Limits     Limits           `json:"limits,omitzero"`
	Timeout    Duration         `json:"timeout,omitempty"` // of the main program; 0: none
	Grace      Duration         `json:"grace,omitempty"`   // between stop signal and kill; 0: DefaultGrace
	Keep       Duration         `json:"keep,omitempty"`    // how long the sandbox is kept after its end
	// Forkable keeps all that a copy of the running sandbox needs inside of it.
	Forkable bool              `json:"forkable,omitempty"`
	Retry    Retry             `json:"retry,omitzero"`
	Pre      []Step            `json:"pre,omitempty"`
	Post     []Step            `json:"post,omitempty"`
	Finally  []Step            `json:"finally,omitempty"`
	Sidecars []Step            `json:"sidecars,omitempty"`
	Success  Success           `json:"success,omitzero"`
	Secrets  map[string]Secret `json:"secrets,omitempty"` // by name
	// Options is what only the chosen engine knows, checked against its schema.
	Options json.RawMessage `json:"options,omitempty"`
}

// A Program is what one step runs. At most one of Run and Cmd is set.
type Program struct {
	Image      string            `json:"image,omitempty"`
	Run        string            `json:"run,omitempty"`        // a script for the engine's shell
	Cmd        []string          `json:"cmd,omitempty"`        // argv
	Entrypoint []string          `json:"entrypoint,omitempty"` // put before Cmd, or before Run, which is then its last argument
	Env        map[string]string `json:"env,omitempty"`
	Files      map[string]string `json:"files,omitempty"`   // path in the work folder (or absolute) to contents
	Workdir    string            `json:"workdir,omitempty"` // relative paths start at the work folder
	User       string            `json:"user,omitempty"`    // "uid", "uid:gid" or names of the image
}

// Modes of a component's run.
const (
	ComponentRunMode = "run"     // the default
	ComponentDebug   = "debug"   // as run, and the data folder is kept at every stage
	ComponentInput   = "input"   // the data folder is made, and nothing runs
	ComponentSandbox = "sandbox" // as input, with few rows of each table
	ComponentDryRun  = "dry-run" // as run, and nothing is stored
)

// A ComponentRun says which data component runs on what: see
// docs/components.md. Relative paths start at the document's folder.
type ComponentRun struct {
	// Config is the configuration: a file, or a folder that holds one.
	Config string `json:"config,omitempty"`
	// Definition is the component: a file with its definition, or its id in the
	// registry. Empty: what the configuration names.
	Definition string `json:"definition,omitempty"`
	Registry   string `json:"registry,omitempty"` // a folder of definitions; empty: the operator's
	// Storage is where tables and files are: a folder or a URL. Empty: the
	// operator's, or the folder "storage" beside the configuration.
	Storage string   `json:"storage,omitempty"`
	Action  string   `json:"action,omitempty"` // empty: run
	Rows    []string `json:"rows,omitempty"`   // ids of rows; empty: all that are not disabled
	Mode    string   `json:"mode,omitempty"`   // empty: ComponentRunMode
	Tag     string   `json:"tag,omitempty"`    // of the image, in place of the definition's
	// Variables are values for this run, in place of the configuration's;
	// VariableValues names a set of the configuration's. At most one is set.
	Variables      map[string]string `json:"variables,omitempty"`
	VariableValues string            `json:"variable_values,omitempty"`
	// StrictMapping refuses what a component leaves in its output folder and
	// nothing maps.
	StrictMapping bool `json:"strict_mapping,omitempty"`
}

// A Step is a program before, after or beside the main one.
type Step struct {
	Name string `json:"name,omitempty"`
	Program
	Timeout Duration `json:"timeout,omitempty"`
	// Probe tells when a sidecar is ready; main waits for it.
	Probe *Probe `json:"probe,omitempty"`
}

// A Probe is how a sidecar's readiness is found: by a program in its sandbox
// that exits 0, an HTTP GET that answers 200 to 399, or a TCP connection.
type Probe struct {
	Cmd      []string `json:"cmd,omitempty"`
	HTTP     string   `json:"http,omitempty"` // path on Port
	Port     int      `json:"port,omitempty"`
	Interval Duration `json:"interval,omitempty"` // 0: one second
	Timeout  Duration `json:"timeout,omitempty"`  // for all tries together; 0: one minute
}

// An Input is data that is brought into the work folder before the task runs.
type Input struct {
	// From says what: "file:PATH", "http://..", "https://..", "git+https://..",
	// or any scheme that a stager is registered for. Empty where Text is set.
	From string `json:"from,omitempty"`
	Text string `json:"text,omitempty"` // the contents themselves
	To   string `json:"to"`             // path in the work folder
	// SHA256 is the expected digest of a single file, in hex.
	SHA256   string `json:"sha256,omitempty"`
	Writable bool   `json:"writable,omitempty"` // the task may change it: forces a copy
	Optional bool   `json:"optional,omitempty"` // its absence is not an error
	MaxSize  Bytes  `json:"max_size,omitempty"` // larger is refused
	// Mode is the file's permission bits in octal text, such as "0755".
	Mode string    `json:"mode,omitempty"`
	Git  *GitInput `json:"git,omitempty"`
}

// GitInput is how a git repository is fetched.
type GitInput struct {
	Ref        string `json:"ref,omitempty"`    // branch, tag or commit; empty: the default branch
	Depth      int    `json:"depth,omitempty"`  // 0: one commit; -1: everything
	Folder     string `json:"folder,omitempty"` // only this folder of it
	Submodules bool   `json:"submodules,omitempty"`
}

// When says after which end of a step something happens.
type When string

// The values of When. Empty is WhenSuccess.
const (
	WhenSuccess When = "success"
	WhenFailure When = "failure"
	WhenAlways  When = "always"
)

// An Output is data that is taken out of the work folder after the task ran.
type Output struct {
	Path     string `json:"path"` // a glob in the work folder, ** for any depth
	To       string `json:"to"`   // "file:PATH"; a folder if it ends in "/"
	When     When   `json:"when,omitempty"`
	Optional bool   `json:"optional,omitempty"` // nothing that matches is not an error
	MaxSize  Bytes  `json:"max_size,omitempty"` // of all that matches
}

// A Mount is a place in the sandbox whose contents come from outside of it.
type Mount struct {
	Type     string            `json:"type"`             // volume, cache, bind, tmpfs, or a registered one
	Source   string            `json:"source,omitempty"` // volume or cache name, or host path
	Target   string            `json:"target"`           // absolute path inside
	ReadOnly bool              `json:"readonly,omitempty"`
	Opts     map[string]string `json:"opts,omitempty"` // of this type; unknown ones are refused
}

// Network modes. Any other mode is the name of a network of the operator's.
const (
	NetworkNone    = "none" // loopback only; the default
	NetworkDefault = "default"
	NetworkHost    = "host"
	NetworkAllow   = "allow"
)

// A Network is what a sandbox can reach. In a document, and in all JSON, it is
// a mode's name, a mapping with the key allow, or a list of attachments.
type Network struct {
	Mode   string          // empty: none; NetworkAllow with Allow
	Allow  []string        // host:port, for NetworkAllow; empty: nothing
	Attach []NetworkAttach // named networks
}

// IsZero reports whether nothing was asked for.
func (n Network) IsZero() bool { return n.Mode == "" && len(n.Allow) == 0 && len(n.Attach) == 0 }

// MarshalJSON returns the form that n has in a document. A network that is
// several of the three forms at once has none.
func (n Network) MarshalJSON() ([]byte, error) {
	allow := n.Mode == NetworkAllow || len(n.Allow) > 0
	switch {
	case len(n.Attach) > 0 && (allow || n.Mode != ""), allow && n.Mode != NetworkAllow && n.Mode != "":
		return nil, errors.New("network: a mode, allowed hosts and attachments exclude each other")
	case len(n.Attach) > 0:
		return json.Marshal(n.Attach)
	case allow:
		return json.Marshal(map[string][]string{"allow": append([]string{}, n.Allow...)})
	case n.Mode == "":
		return json.Marshal(NetworkNone)
	}
	return json.Marshal(n.Mode)
}

// UnmarshalJSON reads any of the forms that a document may have.
func (n *Network) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	*n = Network{}
	switch {
	case bytes.Equal(data, []byte("null")):
		return nil
	case bytes.HasPrefix(data, []byte("[")):
		return json.Unmarshal(data, &n.Attach)
	case bytes.HasPrefix(data, []byte("{")):
		var form struct {
			Allow []string `json:"allow"`
		}
		err := json.Unmarshal(data, &form)
		n.Mode, n.Allow = NetworkAllow, form.Allow
		return err
	}
	return json.Unmarshal(data, &n.Mode)
}

// A NetworkAttach attaches a sandbox to a named network.
type NetworkAttach struct {
	Name    string            `json:"name"`
	Aliases []string          `json:"aliases,omitempty"`
	Args    map[string]string `json:"args,omitempty"`
}

// A Port makes a port of the sandbox reachable on the host.
type Port struct {
	Port     int    `json:"port"`                // inside
	HostPort int    `json:"host_port,omitempty"` // 0: any free one
	HostIP   string `json:"host_ip,omitempty"`   // empty: 127.0.0.1
	Protocol string `json:"protocol,omitempty"`  // tcp (default) or udp
}

// DNS is how names are resolved inside.
type DNS struct {
	Servers []string `json:"servers,omitempty"`
	Search  []string `json:"search,omitempty"`
	Options []string `json:"options,omitempty"`
}

// A Proxy maps a name inside of the sandbox to an upstream of the operator's.
type Proxy struct {
	Upstream string `json:"upstream"`
}

// A Display is a screen that the sandbox offers: a machine's own, or a VNC server
// that the task runs, which listens at Socket or at Port.
type Display struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Socket is a path of a unix socket in the work folder: relative to it, or
	// absolute inside of the sandbox.
	Socket string `json:"socket,omitempty"`
	// Port is one of TCP on the sandbox's own loopback network.
	Port   int `json:"port,omitempty"`
	Width  int `json:"width,omitempty"`  // pixels
	Height int `json:"height,omitempty"` // pixels
}

// Server reports whether d is a VNC server of the task's.
func (d *Display) Server() bool { return d.Socket != "" || d.Port != 0 }

// A Device is a host device given to the sandbox, if the operator permits it.
// In a document it may be written "HOST[:TARGET[:rwm]]".
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target,omitempty"`      // empty: as Source
	Permissions string `json:"permissions,omitempty"` // of r, w and m; empty: rw
}

// Registry is where an image is pulled from with which credentials.
type Registry struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"` // the name of a secret of this task
	Pull     string `json:"pull,omitempty"`     // missing (default), always, never
}

// A Machine is a virtual machine to be booted. Image may be left out where the
// task has an image.
type Machine struct {
	Image    string `json:"image,omitempty"`    // file, URL or registry reference of a disk image
	SHA256   string `json:"sha256,omitempty"`   // of that disk image, in hex
	Type     string `json:"type,omitempty"`     // microvm, q35, pc; empty: the best that works
	Kernel   string `json:"kernel,omitempty"`   // name of an operator's kernel
	Cmdline  string `json:"cmdline,omitempty"`  // added to the kernel's command line
	Firmware string `json:"firmware,omitempty"` // bios or uefi
}

// Retry says how often and when a failed attempt is followed by another.
type Retry struct {
	Limit  int      `json:"limit,omitempty"`  // attempts after the first; 0: none
	Delay  Duration `json:"delay,omitempty"`  // before the second attempt
	Factor float64  `json:"factor,omitempty"` // the delay grows by it; 0: 2
}

// Success says which exits of the main program count as success.
type Success struct {
	Codes []int `json:"codes,omitempty"` // empty: 0
}

// How a secret reaches the task.
const (
	SecretEnv  = "env"
	SecretFile = "file"
)

// A Secret is a value that the task may see and nobody else. Its value never
// stands in a document.
type Secret struct {
	From string `json:"from,omitempty"` // "env:NAME" or "file:PATH", read by the submitter
	// As is SecretEnv (default: a variable named as the secret) or SecretFile
	// (a file /run/secrets/NAME inside).
	As     string  `json:"as,omitempty"`
	Once   bool    `json:"once,omitempty"`   // the file is gone after its first read
	Broker *Broker `json:"broker,omitempty"` // the task sees a placeholder only
}

// A Broker puts a secret's value into requests to one host only.
type Broker struct {
	Host   string `json:"host"`
	Header string `json:"header,omitempty"` // empty: Authorization
}
