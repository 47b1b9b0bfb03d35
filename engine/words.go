package engine

// The words of Missing.What, one for each thing that a host may not give.
// Features.Check finds the reason for a refusal by them.
const (
	WhatCommands   = "commands"
	WhatScripts    = "scripts"
	WhatImages     = "images"
	WhatNoImage    = "programs without an image"
	WhatOverlays   = "overlay root file systems"
	WhatModules    = "modules"
	WhatMachines   = "machines"
	WhatOptions    = "options"
	WhatInput      = "input"
	WhatOwnProgram = "programs of a task's own"
	WhatCPUs       = "cpu limit"
	WhatMemory     = "memory limit"
	WhatPIDs       = "process limit"
	WhatDisk       = "disk limit"
	WhatLog        = "log limit"
	WhatFiles      = "open files limit"
	WhatNoNetwork  = "no network"
	WhatNetwork    = "default network"
	WhatHostNet    = "host network"
	WhatAllowList  = "network allow list"
	WhatNamedNets  = "named networks"
	WhatSharedNets = "shared networks"
	WhatBinds      = "bind mounts"
	WhatTmpfs      = "tmpfs mounts"
	WhatReadOnly   = "read-only mounts"
	WhatUsers      = "other users"
	WhatHostname   = "own hostname"
	WhatPrivileged = "privileged tasks"
	WhatDevices    = "devices"
	WhatGPUs       = "gpus"
	WhatRegistry   = "registries"
	WhatPorts      = "ports"
	WhatDNS        = "own dns"
	WhatSecrets    = "secrets"
	WhatGateway    = "gateway" // of proxies, allow lists and brokered secrets
	WhatKeep       = "shells after the end"
	WhatDisplays   = "displays"
	WhatScreen     = "screens"         // of a sandbox's own
	WhatServers    = "display servers" // of a task's own
	WhatPortScreen = "displays at ports"
	WhatExec       = "exec"
	WhatTerminals  = "terminals"
	WhatEndOfInput = "end of input at a terminal"
	WhatStats      = "stats"
	WhatPause      = "pause"
	WhatForks      = "forks"
	WhatWarm       = "warm pools"
)

// The words of Features.Isolation. What an engine lists there, the conformance
// suite holds it to.
const (
	IsolatedMounts    = "mount namespace"
	IsolatedPIDs      = "pid namespace"
	IsolatedIPC       = "ipc namespace"
	IsolatedHostname  = "uts namespace"
	IsolatedNetwork   = "network namespace"
	IsolatedUsers     = "user namespace"
	IsolatedCgroup    = "cgroup namespace"
	IsolatedRoot      = "own root view"       // nothing of the host's files but read-only programs
	IsolatedUserID    = "own user ids"        // no two live sandboxes share one on the host
	NoNewPrivileges   = "no new privileges"   // set-id programs gain nothing
	NoCapabilities    = "no capabilities"     // all five sets are empty for the program
	FilteredSyscalls  = "seccomp"             // a filter of system calls
	RestrictedFiles   = "landlock"            // a second fence around files
	SeparateKernel    = "kernel of its own"   // a virtual machine or a user-space kernel
	SeparateLanguage  = "language runtime"    // WebAssembly: no system calls at all
	KilledTogether    = "killed as one"       // nothing that the program started outlives it
	CleanDescriptors  = "clean descriptors"   // none but 0, 1 and 2
	CleanEnvironment  = "clean environment"   // nothing of the host's variables
	InvisibleHostProc = "own process listing" // no process of the host can be seen
)
