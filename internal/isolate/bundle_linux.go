package isolate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/internal/seccomp"
)

// The part of an OCI runtime's config.json that is used, see
// https://github.com/opencontainers/runtime-spec/blob/main/config.md. The types
// are few, and not those of the specification's own package, so that the keeper
// stays small.

// containedPath is where a runtime finds this program, and the argv[0] that it
// has then. It lies on the runtime's own /dev, so that no image can be in the
// way.
const containedPath = "/dev/init"

type ociConfig struct {
	Version  string     `json:"ociVersion"`
	Process  ociProcess `json:"process"`
	Root     ociRoot    `json:"root"`
	Hostname string     `json:"hostname"`
	Mounts   []ociMount `json:"mounts"`
	Linux    ociLinux   `json:"linux"`
}

type ociProcess struct {
	User struct {
		UID uint32 `json:"uid"`
		GID uint32 `json:"gid"`
	} `json:"user"`
	Args            []string            `json:"args"`
	Env             []string            `json:"env"`
	Dir             string              `json:"cwd"`
	Capabilities    map[string][]string `json:"capabilities"`
	NoNewPrivileges bool                `json:"noNewPrivileges"`
}

type ociRoot struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"readonly"`
}

type ociMount struct {
	Target  string   `json:"destination"`
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Options []string `json:"options"`
}

type ociLinux struct {
	Namespaces []ociNamespace    `json:"namespaces"`
	Devices    []ociDevice       `json:"devices,omitempty"`
	Masked     []string          `json:"maskedPaths"`
	ReadOnly   []string          `json:"readonlyPaths"`
	Sysctls    map[string]string `json:"sysctl,omitempty"`
	Seccomp    *ociSeccomp       `json:"seccomp,omitempty"`
	Resources  ociResources      `json:"resources"`
}

type ociNamespace struct {
	Type string `json:"type"`
}

type ociDevice struct {
	Path  string `json:"path"`
	Type  string `json:"type"`
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	Mode  uint32 `json:"fileMode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
}

type ociResources struct {
	Devices []ociDeviceRule `json:"devices,omitempty"`
}

type ociDeviceRule struct {
	Allow  bool   `json:"allow"`
	Type   string `json:"type,omitempty"`
	Major  *int64 `json:"major,omitempty"`
	Minor  *int64 `json:"minor,omitempty"`
	Access string `json:"access"`
}

type ociSeccomp struct {
	Default       string       `json:"defaultAction"`
	DefaultErrno  uint32       `json:"defaultErrnoRet"`
	Architectures []string     `json:"architectures"`
	Syscalls      []ociSyscall `json:"syscalls"`
}

type ociSyscall struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Errno  *uint32  `json:"errnoRet,omitempty"`
	Args   []ociArg `json:"args,omitempty"`
}

type ociArg struct {
	Index    int    `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

// capNames are the capabilities' names, by number.
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// capsOf are the names of what programs may have, besides init's own.
func capsOf(list []int) ([]string, error) {
	names := slices.Clone(initCaps)
	for _, n := range list {
		if n < 0 || n >= len(capNames) {
			return nil, invalid("capabilities", fmt.Sprintf("there is no number %d", n))
		}
		if name := "CAP_" + capNames[n]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// initCaps are what init needs to become the user of a program, to give
// everything up on the way, and to kill it; and to put right what the runtime
// has made of the root. It has them in the sandbox's user namespace only.
var initCaps = []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN"}

// initCalls are the system calls of init that programs may not make.
var initCalls = []string{"mount_setattr"}

// bundle returns the config.json of a sandbox. Its root, with the task's
// mounts, is there already; late are those mounts that can only be made in the
// runtime's own.
func bundle(spec *Spec, s *setup, late []Mount) ([]byte, error) {
	c := ociConfig{
		Version: "1.0.2", Hostname: s.hostname,
		Process: ociProcess{
			Args: []string{containedPath}, Env: []string{"GOMAXPROCS=2", "GOGC=25"}, Dir: "/",
			Capabilities: map[string][]string{}, NoNewPrivileges: true,
		},
		Root:   ociRoot{Path: stageRoot, ReadOnly: s.rootReadOnly},
		Mounts: systemMounts(s),
		Linux: ociLinux{
			// The network is that of the stage.
			Namespaces: []ociNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "cgroup"}},
			Masked:     s.masked, ReadOnly: s.readOnly, Sysctls: s.sysctls,
		},
	}
	caps, err := capsOf(spec.Caps)
	if err != nil {
		return nil, err
	}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		c.Process.Capabilities[set] = caps
	}
	for i := range late {
		m, err := lateMount(&late[i], user(spec))
		if err != nil {
			return nil, err
		}
		c.Mounts = append(c.Mounts, m)
	}
	if err := c.addDevices(spec); err != nil {
		return nil, err
	}
	if spec.Seccomp {
		c.Linux.Seccomp = seccompOf(seccomp.Outline())
	}
	if spec.Runtime.sentry() {
		c.forSentry(spec)
	}
	return json.Marshal(&c)
}

// systemMounts are the kernel's file systems, and this program.
func systemMounts(s *setup) []ociMount {
	list := []ociMount{
		{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
		{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{"/dev/pts", "devpts", "devpts", []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{"/dev/shm", "tmpfs", "shm", []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(s.shm, 10)}},
		{containedPath, "bind", stageInit, []string{"bind", "ro", "nosuid", "nodev"}},
	}
	if s.sys {
		list = append(list, ociMount{"/sys", "bind", stageSys, []string{"rbind", "ro", "nosuid", "noexec", "nodev"}})
	}
	return list
}

// split separates the mounts whose places lie on the runtime's own /dev.
func split(list []Mount) (early, late []Mount) {
	for _, m := range list {
		if m.Target == "/dev" || strings.HasPrefix(m.Target, "/dev/") {
			late = append(late, m)
			continue
		}
		early = append(early, m)
	}
	return early, late
}

// lateMount is one below /dev, where only what is in memory makes sense.
func lateMount(m *Mount, who User) (ociMount, error) {
	if m.Type != Tmpfs {
		return ociMount{}, unsupported(strconv.Quote(m.Target), "an OCI runtime can mount only a tmpfs below /dev")
	}
	options := []string{
		"nosuid", "nodev", "noexec", "mode=" + strconv.FormatUint(uint64(modeOr(m.Mode, 0o1777)), 8),
		"uid=" + strconv.Itoa(who.UID), "gid=" + strconv.Itoa(who.GID),
	}
	if m.Size > 0 {
		options = append(options, "size="+strconv.FormatInt(int64(m.Size), 10))
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return ociMount{m.Target, "tmpfs", "tmpfs", options}, nil
}

// addDevices adds the devices of the spec, and the rules by which a runtime
// that has rights over control groups allows them and the usual ones only.
func (c *ociConfig) addDevices(spec *Spec) error {
	none, all := int64(-1), "rwm"
	c.Linux.Resources.Devices = []ociDeviceRule{{Access: all}}
	allow := func(major, minor int64, access string) {
		r := ociDeviceRule{Allow: true, Type: "c", Major: &major, Access: access}
		if minor != none {
			r.Minor = &minor
		}
		c.Linux.Resources.Devices = append(c.Linux.Resources.Devices, r)
	}
	for _, n := range nodes {
		allow(int64(n.major), int64(n.minor), all)
	}
	allow(136, none, all) // terminals
	allow(5, 2, all)      // /dev/ptmx
	for i := range spec.Devices {
		n, err := deviceNode(spec, &spec.Devices[i])
		if err != nil {
			return err
		}
		who := user(spec)
		c.Linux.Devices = append(c.Linux.Devices, ociDevice{
			Path: "/dev/" + n.name, Type: "c", Major: int64(n.major), Minor: int64(n.minor), Mode: n.mode,
			UID: uint32(who.UID), GID: uint32(who.GID),
		})
		access := "rw"
		if spec.Devices[i].ReadOnly {
			access = "r"
		}
		allow(int64(n.major), int64(n.minor), access)
	}
	return nil
}

// seccompOf is the runtime's form of what package seccomp allows. It can't say
// all that the filter says, which programs get besides; it keeps init from what
// no program of the sandbox needs, too.
func seccompOf(o seccomp.Profile) *ociSeccomp {
	absent := uint32(o.Absent)
	out := &ociSeccomp{
		Default: "SCMP_ACT_ERRNO", DefaultErrno: uint32(o.Refused), Architectures: o.Architectures,
		Syscalls: []ociSyscall{
			{Names: append(o.Allowed, initCalls...), Action: "SCMP_ACT_ALLOW"},
			{Names: o.Missing, Action: "SCMP_ACT_ERRNO", Errno: &absent},
		},
	}
	for _, m := range o.Masked {
		out.Syscalls = append(out.Syscalls, ociSyscall{
			Names: []string{m.Name}, Action: "SCMP_ACT_ALLOW",
			Args: []ociArg{{Index: m.Arg, Value: uint64(m.Mask), Op: "SCMP_CMP_MASKED_EQ"}},
		})
	}
	for _, m := range o.Only {
		for _, value := range m.Values {
			out.Syscalls = append(out.Syscalls, ociSyscall{
				Names: []string{m.Name}, Action: "SCMP_ACT_ALLOW",
				// The kernel looks at 32 bits of the argument only.
				Args: []ociArg{{Index: m.Arg, Value: 0xffffffff, ValueTwo: uint64(value), Op: "SCMP_CMP_MASKED_EQ"}},
			})
		}
	}
	return out
}

// runtimeArgs are the runtime's arguments to make a sandbox and leave it alone.
func runtimeArgs(spec *Spec, name string) []string {
	r := spec.Runtime
	args := append([]string{name}, r.Flags...)
	args = append(args, "--root", stageState)
	handOn := []string{"--preserve-fds", "1"}
	switch r.Kind {
	case Crun:
		// It is in no position to make groups, and need not: programs move
		// themselves into Caisson's.
		args = append(args, "--cgroup-manager=disabled")
	case Runsc:
		// The files of the sandbox are looked at, and some written, from outside.
		args = append(args, "--ignore-cgroups", "--file-access=shared", "--network="+sentryNetwork(spec))
		handOn = nil
	case Runc:
		args = append(args, "--rootless=true")
	}
	args = append(append(args, "run", "--detach"), handOn...)
	return append(args, "--bundle", stageBundle, spec.ID)
}

// sentryNetwork is what gVisor calls a sandbox's network.
func sentryNetwork(spec *Spec) string {
	if spec.HostNetwork {
		return "host"
	}
	return "none"
}

// forSentry changes what gVisor has otherwise: its /dev is its own, the root's
// mounts are looked at by a process outside, and there is no host's filter.
func (c *ociConfig) forSentry(spec *Spec) {
	c.Process.Args = []string{sentryPath, sentryWord}
	c.Mounts = slices.DeleteFunc(c.Mounts, func(m ociMount) bool { return m.Target == containedPath })
	// What is mounted is there already, on the stage. Once more in the list, the
	// kernel in there knows what is read-only, and puts nothing of its own over an
	// empty /tmp.
	early, _ := split(spec.Mounts)
	for i, m := range early {
		options := []string{"rbind", "nosuid", "nodev"}
		if m.ReadOnly {
			options = append(options, "ro")
		}
		c.Mounts = append(c.Mounts, ociMount{m.Target, "bind", stageMount(i), options})
	}
	c.Root.ReadOnly = false
	c.Linux.Seccomp = nil
	c.Linux.Namespaces = []ociNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}}
	if !spec.HostNetwork {
		c.Linux.Namespaces = append(c.Linux.Namespaces, ociNamespace{Type: "network"})
	}
}
