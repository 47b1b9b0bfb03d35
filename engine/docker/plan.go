package docker

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

// Labels tell whose a container or network is.
const (
	labelInstallation = "run.caisson.installation"
	labelSandbox      = "run.caisson.sandbox"
	labelNetwork      = "run.caisson.network"
	labelTask         = "run.caisson.task"
	labelAttempt      = "run.caisson.attempt"
	labelStep         = "run.caisson.step"
	labelNetworks     = "run.caisson.networks" // their names in order, with commas
)

const (
	standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	standardHost = "caisson"
	// ownThreads are those of the container's first process, which the limit of
	// processes must leave room for.
	ownThreads = 8
	// nanosPerMilli makes the daemon's unit of caisson.CPUs.
	nanosPerMilli = 1_000_000
	onceSize      = "4k"
)

// logLimit bounds what the daemon keeps of the output, of which two such files:
// it is read again only if the connection to the daemon breaks.
const logLimit = "1g"

// A setting is what decides about a sandbox besides its spec.
type setting struct {
	opts   *Options
	choice *choice
	image  *image
	who    user
	found  *found
	run    string // the sandbox's runtime folder
	name   string // of the container
	mark   string
	shared *shared // the network that it shares with others, or nil
}

// newMark returns a word that nobody can guess.
func newMark() string {
	var word [16]byte
	rand.Read(word[:])
	return hex.EncodeToString(word[:])
}

// keeper turns a spec into what the keeper is told. It looks at nothing but its
// arguments.
//
// Errors: ErrInvalid or ErrUnsupported, with the name of the field at fault.
func (set *setting) keeper(s *engine.Spec) (*keeper.Spec, error) {
	if err := kept.CheckSecrets(s); err != nil {
		return nil, err
	}
	args, err := set.args(s)
	if err != nil {
		return nil, err
	}
	spec := &boxSpec{
		Host: set.found.host, Name: set.name, Dir: filepath.Join(set.run, folderName), Mark: set.mark,
		Config: set.config(s), HostConfig: set.hostConfig(s),
		UID: set.who.uid, GID: set.who.gid, Files: s.Limits.Files, Seccomp: !s.Privileged, Gateway: gatewayOf(s.Gateway),
	}
	if err := set.networks(s, spec); err != nil {
		return nil, err
	}
	spec.Lent, spec.Owner = set.chowned(s), s.WorkOwner
	spec.Modes = modes(spec.HostConfig.Tmpfs)
	for _, secret := range s.Secrets {
		switch {
		case secret.As != caisson.SecretFile:
		case secret.Once:
			spec.Secrets = append(spec.Secrets, secretFile{Name: secret.Name, Link: path.Join(onceDir, secret.Name)})
		default:
			spec.Secrets = append(spec.Secrets, secretFile{Name: secret.Name, Value: secret.Value})
		}
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	box := &isolate.Spec{ID: s.ID, User: &isolate.User{UID: set.who.uid, GID: set.who.gid}}
	if s.Limits.Memory > 0 {
		// For messages alone: the group is the daemon's.
		box.Cgroup = &isolate.Cgroup{Memory: s.Limits.Memory}
	}
	k := kept.KeeperSpec(s, set.run, box, isolate.Program{Args: args, Env: set.env(s), Dir: set.dir(s)})
	if k.StopSignal == 0 {
		k.StopSignal = set.image.stopSignal
	}
	k.Foreign = &keeper.Foreign{Kind: Kind, Data: data}
	return k, nil
}

// args is the program's argv, by Docker's rules: an image alone runs its own
// command, and a command without an entrypoint follows the image's own.
func (set *setting) args(s *engine.Spec) ([]string, error) {
	switch {
	case s.Run != "":
		return []string{"/bin/sh", "-c", s.Run}, nil
	case len(s.Args) > 0 && s.ImageEntrypoint:
		return append(slices.Clone(set.image.entrypoint), s.Args...), nil
	case len(s.Args) > 0:
		return slices.Clone(s.Args), nil
	}
	args := append(slices.Clone(set.image.entrypoint), set.image.cmd...)
	if len(args) == 0 {
		return nil, kept.Invalid("cmd", errors.New("nothing to run: the image has no command of its own; set cmd or run"))
	}
	return args, nil
}

// env is the program's environment, sorted: the image's, what the task sets, its
// secrets, and what is added where they lack it.
func (set *setting) env(s *engine.Spec) []string {
	all := map[string]string{
		"PATH": standardPath, "HOME": set.who.home, "USER": set.who.name, "TMPDIR": "/tmp", "CAISSON_WORK": caisson.WorkDir,
	}
	for _, kv := range set.image.env {
		if name, value, ok := strings.Cut(kv, "="); ok && engine.CheckEnv(name, value) == nil {
			all[name] = value
		}
	}
	maps.Copy(all, s.Env)
	return kept.Environ(all, s.Secrets)
}

// dir is where the program starts. It is entered by the first process, inside:
// what an image says there can't lead to a folder of the host.
func (set *setting) dir(s *engine.Spec) string {
	switch {
	case s.Workdir != "":
		return path.Clean(s.Workdir)
	case s.Run == "" && path.IsAbs(set.image.workdir):
		return path.Clean(set.image.workdir)
	}
	return caisson.WorkDir
}

// config is what the container is, apart from its host.
func (set *setting) config(s *engine.Spec) *container.Config {
	hostname := s.Hostname
	if hostname == "" {
		hostname = standardHost
	}
	if s.Network.Mode == caisson.NetworkHost {
		hostname = s.Hostname
	}
	return &container.Config{
		Image: set.image.id, Hostname: hostname,
		User:        fmt.Sprintf("%d:%d", set.who.uid, set.who.gid),
		Entrypoint:  append([]string{path.Join(insideDir, initName)}, isolate.GuestArgs(path.Join(insideDir, socketName))...),
		Cmd:         []string{},
		WorkingDir:  "/",
		Labels:      set.opts.labels(s),
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		// The first process ends at once when the daemon wants it to.
		StopSignal: "SIGKILL",
	}
}

// labels tell whose a container is.
func (o *Options) labels(s *engine.Spec) map[string]string {
	return map[string]string{
		labelInstallation: o.Installation, labelSandbox: s.ID,
		labelTask: s.Task, labelAttempt: strconv.Itoa(s.Attempt), labelStep: s.Step,
	}
}

// hostConfig is what the container has of its host.
func (set *setting) hostConfig(s *engine.Spec) *container.HostConfig {
	no := false
	h := &container.HostConfig{
		LogConfig:      set.found.logging,
		Init:           &no,
		ReadonlyRootfs: set.choice.ReadOnly,
		Privileged:     s.Privileged,
		ShmSize:        int64(set.choice.shm()),
		GroupAdd:       set.who.groups,
		Tmpfs:          map[string]string{},
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
	}
	if !s.Privileged {
		h.SecurityOpt = []string{"no-new-privileges"}
		switch {
		case set.who.uid != 0:
			h.CapDrop = []string{"ALL"}
		case set.shared != nil && set.shared.Allow:
			// It could answer for others on the network, and speak to the host.
			h.CapDrop = []string{"NET_RAW"}
		}
	}
	h.NanoCPUs = int64(s.Limits.CPUs) * nanosPerMilli
	if s.Limits.Memory > 0 {
		h.Memory, h.MemorySwap = int64(s.Limits.Memory), int64(s.Limits.Memory)
	}
	if s.Limits.PIDs > 0 {
		n := s.Limits.PIDs + ownThreads
		h.PidsLimit = &n
	}
	if s.Limits.Disk > 0 {
		h.StorageOpt = map[string]string{"size": strconv.FormatInt(int64(s.Limits.Disk), 10)}
	}
	for _, d := range s.Devices {
		target := d.Target
		if target == "" {
			target = d.Source
		}
		permissions := d.Permissions
		if permissions == "" {
			permissions = "rw"
		}
		h.Devices = append(h.Devices, container.DeviceMapping{PathOnHost: d.Source, PathInContainer: target, CgroupPermissions: permissions})
	}
	h.DeviceRequests = set.choice.gpus
	if dns := resolver(s); dns != nil {
		for _, server := range dns.Servers {
			if addr, err := netip.ParseAddr(server); err == nil {
				h.DNS = append(h.DNS, addr)
			}
		}
		h.DNSSearch, h.DNSOptions = dns.Search, dns.Options
	}
	if s.Gateway != nil {
		for _, name := range slices.Sorted(maps.Keys(s.Gateway.Names)) {
			h.ExtraHosts = append(h.ExtraHosts, name+":"+s.Gateway.Names[name])
		}
	}
	set.mounts(s, h)
	return h
}

// mounts are the first process's program, the work folder, /tmp, secrets, and
// what the task asks for.
func (set *setting) mounts(s *engine.Spec, h *container.HostConfig) {
	bind := func(source, target string, readOnly bool) {
		h.Mounts = append(h.Mounts, mount.Mount{
			Type: mount.TypeBind, Source: source, Target: target, ReadOnly: readOnly,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate},
		})
	}
	bind(filepath.Join(set.run, folderName), insideDir, false)
	bind(set.opts.Init, path.Join(insideDir, initName), true)
	if set.ownResolv(s) {
		bind(filepath.Join(set.run, resolvName), "/etc/resolv.conf", true)
	}
	if set.shared != nil && set.shared.Allow {
		bind(filepath.Join(s.SharedNetwork, hostsName), "/etc/hosts", true)
	}
	owned, plain := set.tmpfsOptions()
	tmpfs := func(target string, size caisson.Bytes, mode uint32, more string) {
		if mode == 0 {
			mode = 0o1777
		}
		// The daemon adds noexec where nothing else is said.
		text := fmt.Sprintf("rw,exec,nosuid,nodev%s,mode=%o", plain, mode)
		if size > 0 {
			text += fmt.Sprintf(",size=%d", int64(size))
		}
		if more != "" {
			text += "," + more
		}
		h.Tmpfs[target] = text
	}
	if s.Work != "" {
		bind(s.Work, caisson.WorkDir, false)
	} else {
		tmpfs(caisson.WorkDir, 0, 0o755, owned)
	}
	// The daemon refuses two mounts in one place.
	switch replaced := slices.ContainsFunc(s.Mounts, func(m engine.Mount) bool { return m.Target == "/tmp" }); {
	case replaced:
	case s.Tmp != "":
		bind(s.Tmp, "/tmp", false)
	default:
		tmpfs("/tmp", s.Limits.Disk, 0, "")
	}
	for _, secret := range s.Secrets {
		if secret.As == caisson.SecretFile {
			h.Tmpfs[secretsDir] = "rw,noexec,nosuid,nodev" + plain + ",mode=755"
		}
		if secret.Once {
			h.Tmpfs[onceDir] = "rw,noexec,nosuid,nodev" + plain + ",mode=700,size=" + onceSize + "," + owned
		}
	}
	for _, m := range s.Mounts {
		switch {
		case m.Type == engine.MountBind:
			bind(m.Source, m.Target, m.ReadOnly)
		case m.ReadOnly:
			tmpfs(m.Target, m.Size, m.Mode, "")
			h.Tmpfs[m.Target] = strings.Replace(h.Tmpfs[m.Target], "rw,", "ro,", 1)
		default:
			tmpfs(m.Target, m.Size, m.Mode, "")
		}
	}
}

// resolver is what stands in resolv.conf, or nil: a gateway's resolver is asked
// in the place of all others.
func resolver(s *engine.Spec) *caisson.DNS {
	if s.Gateway == nil || s.Gateway.Resolver == "" {
		return s.DNS
	}
	out := caisson.DNS{Servers: []string{s.Gateway.Resolver}}
	if s.DNS != nil {
		out.Search, out.Options = s.DNS.Search, s.DNS.Options
	}
	return &out
}

// ownResolv reports whether resolv.conf is written here: Podman writes none
// where there is no network, and a daemon puts a server of its own before a
// gateway's.
func (set *setting) ownResolv(s *engine.Spec) bool {
	if s.Gateway != nil && s.Gateway.Resolver != "" {
		return true
	}
	return set.found.podman && s.DNS != nil && s.SharedNetwork == "" && len(attachments(&s.Network)) == 0 && alone(&s.Network)
}

// alone reports whether a network is nothing but a loopback device.
func alone(n *caisson.Network) bool {
	return n.Mode == "" || n.Mode == caisson.NetworkNone || n.Mode == caisson.NetworkAllow
}

// tmpfsOptions returns how the daemon is told that a tmpfs is the program's
// user's, and that no tmpfs begins with what the image has there: Podman would
// copy that.
func (set *setting) tmpfsOptions() (owned, plain string) {
	if set.found.podman {
		return "U", ",notmpcopyup"
	}
	return fmt.Sprintf("uid=%d,gid=%d", set.who.uid, set.who.gid), ""
}

// modes returns the modes that tmpfs are to have.
func modes(tmpfs map[string]string) map[string]uint32 {
	all := map[string]uint32{}
	for target, options := range tmpfs {
		for option := range strings.SplitSeq(options, ",") {
			if value, ok := strings.CutPrefix(option, "mode="); ok {
				n, _ := strconv.ParseUint(value, 8, 32)
				all[target] = uint32(n)
			}
		}
	}
	return all
}

// chowned are the folders whose files must be given to the program's user.
func (set *setting) chowned(s *engine.Spec) []string {
	if set.who.uid == s.WorkOwner.UID && set.who.gid == s.WorkOwner.GID || set.who.uid == 0 {
		return nil
	}
	var list []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	add(s.Work)
	for _, m := range s.Mounts {
		if m.Type == engine.MountBind && m.Owned && !m.ReadOnly {
			add(m.Source)
		}
	}
	return list
}

// networks decides what the container is attached to.
func (set *setting) networks(s *engine.Spec, b *boxSpec) error {
	h := b.HostConfig
	first := func(name string, aliases []string) {
		h.NetworkMode = container.NetworkMode(name)
		b.Config.Labels[labelNetworks] = name
		if len(aliases) > 0 {
			b.Networking = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: {Aliases: aliases}}}
		}
	}
	switch {
	case set.shared != nil:
		first(set.shared.Name, s.Names)
		set.neighbours(s, b)
	case len(attachments(&s.Network)) > 0:
		for i, a := range attachments(&s.Network) {
			if len(a.Args) > 0 {
				return kept.Unsupported("network.args", fmt.Errorf("network %q: this engine's networks take no arguments", a.Name))
			}
			if i == 0 {
				first(a.Name, a.Aliases)
				continue
			}
			b.More = append(b.More, attachment{Name: a.Name, Aliases: a.Aliases})
			b.Config.Labels[labelNetworks] += "," + a.Name
		}
	case s.Network.Mode == caisson.NetworkHost:
		first("host", nil)
	case s.Network.Mode == caisson.NetworkDefault:
		first(set.opts.Network, nil)
	default:
		first("none", nil)
		if len(s.Ports) > 0 {
			return kept.Invalid("ports", errors.New("without a network there are none to publish; name one, such as network: bridge"))
		}
	}
	return set.ports(s, b)
}

// neighbours says how those are met who share a network with an allow-list.
func (set *setting) neighbours(s *engine.Spec, b *boxSpec) {
	if !set.shared.Allow {
		return
	}
	b.Neighbours = &neighbours{
		Network: set.shared.Name, Hosts: filepath.Join(s.SharedNetwork, hostsName), Names: s.Names,
	}
	if s.Gateway == nil {
		b.Gateway = &gateway{Everything: true}
		return
	}
	b.Neighbours.Fixed = s.Gateway.Names
}

// ports publishes ports.
func (set *setting) ports(s *engine.Spec, b *boxSpec) error {
	if len(s.Ports) == 0 {
		return nil
	}
	b.Config.ExposedPorts, b.HostConfig.PortBindings = network.PortSet{}, network.PortMap{}
	for i, p := range s.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = "tcp"
		}
		port, err := network.ParsePort(fmt.Sprintf("%d/%s", p.Port, protocol))
		if err != nil {
			return kept.Invalid(fmt.Sprintf("ports[%d]", i), err)
		}
		ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if p.HostIP != "" {
			if ip, err = netip.ParseAddr(p.HostIP); err != nil {
				return kept.Invalid(fmt.Sprintf("ports[%d].host_ip", i), err)
			}
		}
		binding := network.PortBinding{HostIP: ip}
		if p.HostPort != 0 {
			binding.HostPort = strconv.Itoa(p.HostPort)
		}
		b.Config.ExposedPorts[port] = struct{}{}
		b.HostConfig.PortBindings[port] = append(b.HostConfig.PortBindings[port], binding)
	}
	return nil
}
