//go:build unix

package qemu

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

// guest says what is done in the guest, but for shared folders.
func (set *setting) guest(s *engine.Spec) guestSpec {
	if set.own != nil {
		return set.ownGuest(s)
	}
	g := guestSpec{Hostname: hostname(s), MachineID: kept.MachineID(s.ID), Root: guestRoot, Files: set.files(s), Setup: set.setup(s)}
	g.Early = []guest.Mount{
		{Type: "ext4", Source: "serial:" + imageDisk, Target: guestImage, Flags: []string{"ro", "noatime"}, Wait: deviceTime},
		{Type: "ext4", Source: "serial:" + layerDisk, Target: guestLayer, Flags: []string{"noatime"}, Wait: deviceTime},
	}
	overlay := guest.Mount{
		Type: "overlay", Source: "overlay", Target: guestRoot,
		Options: fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", guestImage, guestLayer, guestLayer),
	}
	g.Early = append(g.Early, overlay)
	if s.Gateway != nil {
		g.Gateway = &guestGateway{Sockets: kept.Sockets(s.Gateway), Everything: s.Gateway.Everything}
	}
	return g
}

func hostname(s *engine.Spec) string {
	if s.Hostname == "" {
		return standardHost
	}
	return s.Hostname
}

// setup says who programs run as, and with which limits. All are held by the
// guest's kernel; memory and processors by the machine's size as well, and by its
// control group on the host.
func (set *setting) setup(s *engine.Spec) guest.Setup {
	user := set.user.User
	out := guest.Setup{
		User: &user, Files: s.Limits.Files, Shm: kept.Share(s).Shm,
		Group: &isolate.Cgroup{Name: guestGroup, CPUs: s.Limits.CPUs, Memory: set.programMemory(s), PIDs: s.Limits.PIDs},
	}
	if user.UID == 0 {
		out.Caps = guest.DefaultCaps()
	}
	return out
}

// mounts are the folders of the host and in memory that the guest's program sees,
// in order. What is not limited otherwise lies on the sandbox's own disk.
func (set *setting) mounts(s *engine.Spec) []isolate.Mount {
	own := *s
	// There is no folder for secrets that can be read once: the agent makes such
	// files.
	own.Secrets = nil
	list := kept.Mounts(&own, func(source string) *isolate.User { return set.owner(s, source) })
	// What nobody else bounds lies on the sandbox's own disk, and so does /tmp: QEMU
	// can't make sockets and named pipes in a shared folder.
	list = slices.DeleteFunc(list, func(m isolate.Mount) bool { return ownPlace(s, &m) })
	if slices.ContainsFunc(s.Secrets, func(secret engine.Secret) bool { return secret.As == caisson.SecretFile }) {
		// Secrets are on no disk.
		list = append(list, isolate.Mount{Type: isolate.Tmpfs, Target: secretsDir, Mode: 0o755})
	}
	return list
}

// ownPlace reports whether a mount is of a place that lies on the sandbox's disk.
func ownPlace(s *engine.Spec, m *isolate.Mount) bool {
	asked := slices.ContainsFunc(s.Mounts, func(own engine.Mount) bool { return own.Target == m.Target })
	return !asked && (m.Target == "/tmp" || m.Target == caisson.WorkDir && s.Work == "")
}

// owner returns whose files those of source are on disk, for an idmapped mount.
func (set *setting) owner(s *engine.Spec, source string) *isolate.User {
	if !set.root || slices.Contains(set.plain, source) {
		return nil
	}
	return &isolate.User{UID: s.WorkOwner.UID, GID: s.WorkOwner.GID}
}

// guestMount is a mount of package isolate's as the agent makes it.
func guestMount(m *isolate.Mount) guest.Mount {
	out := guest.Mount{Source: m.Source, Target: m.Target}
	if m.Type == isolate.Bind {
		out.Flags = []string{"bind", "nosuid", "nodev"}
	} else {
		mode := m.Mode
		if mode == 0 {
			mode = 0o1777
		}
		options := []string{fmt.Sprintf("mode=%o", mode)}
		if m.Size > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.Size))
		}
		out.Type, out.Source = isolate.Tmpfs, isolate.Tmpfs
		out.Flags, out.Options = []string{"nosuid", "nodev"}, strings.Join(options, ",")
	}
	if m.ReadOnly {
		out.Flags = append(out.Flags, "ro")
	}
	return out
}

// files are written over the image's. The image's own users and groups stay.
func (set *setting) files(s *engine.Spec) []guestFile {
	name := hostname(s)
	list := []guestFile{
		{Path: "/etc/hostname", Data: []byte(name + "\n"), Mode: 0o644},
		{Path: "/etc/hosts", Data: set.hosts(s), Mode: 0o644},
		{Path: "/run", Dir: true, Mode: 0o755},
	}
	if contents, ok := set.resolvConf(s); ok {
		list = append(list, guestFile{Path: "/etc/resolv.conf", Data: contents, Mode: 0o644})
	}
	if tmp := (isolate.Mount{Target: "/tmp"}); ownPlace(s, &tmp) {
		list = append(list, guestFile{Path: tmp.Target, Dir: true, Mode: 0o1777})
	}
	if work := (isolate.Mount{Target: caisson.WorkDir}); ownPlace(s, &work) {
		list = append(list, guestFile{Path: work.Target, Dir: true, Mode: 0o755, Own: true})
	}
	// Docker makes a working directory that the image has not.
	if at := dir(s); at != "/" && !covered(s, at) {
		list = append(list, guestFile{Path: at, Dir: true})
	}
	for _, secret := range s.Secrets {
		if secret.As == caisson.SecretFile {
			list = append(list, guestFile{
				Path: path.Join(secretsDir, secret.Name), Data: secret.Value, Mode: 0o400, Own: true, Once: secret.Once,
			})
		}
	}
	return list
}

// covered reports whether a path lies where something is mounted.
func covered(s *engine.Spec, name string) bool {
	taken := []string{"/proc", "/sys", "/dev", "/tmp", caisson.WorkDir}
	for _, m := range s.Mounts {
		taken = append(taken, m.Target)
	}
	return slices.ContainsFunc(taken, func(t string) bool { return kept.Below(name, t) })
}
