package kept

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
)

const (
	// pageSize is the largest that kernels have: sizes of memory are rounded up
	// to pages.
	pageSize = 64 * caisson.KiB
	// leastDisk is the least limit that can be divided, see Share.
	leastDisk = 8 * pageSize
	// standardShm is the size of /dev/shm where nothing else is asked for.
	standardShm = 64 * caisson.MiB
	// onceDir holds the secrets that can be read once. It is of a page, because
	// FIFOs take no room.
	onceDir    = "/run/once"
	onceSize   = 4 * caisson.KiB
	secretsDir = "/run/secrets"
)

// KeeperSpec is what the keeper of a sandbox is told. Run is the sandbox's
// runtime folder.
func KeeperSpec(s *engine.Spec, run string, box *isolate.Spec, program isolate.Program) *keeper.Spec {
	k := &keeper.Spec{
		ID: s.ID, Dir: s.Dir, Socket: filepath.Join(run, socketName), Log: s.Log, LogLimit: s.Limits.Log,
		Box: box, Program: program, Input: s.Input,
		Timeout: s.Timeout, StopSignal: s.StopSignal, Grace: s.Grace, Linger: s.Linger,
		Keep:   s.Keep,
		OnExit: s.OnExit, OnExitEnv: s.OnExitEnv,
	}
	for _, secret := range s.Secrets {
		if !secret.Placeholder {
			k.Redact = append(k.Redact, secret.Value)
		}
		if secret.Once {
			k.Once = append(k.Once, keeper.Once{
				Path: path.Join(onceDir, secret.Name), Value: secret.Value,
				UID: OnHost(box.UIDs, box.User.UID), GID: OnHost(box.GIDs, box.User.GID),
			})
		}
	}
	return k
}

// CheckSecrets refuses secrets that can't be delivered as asked for.
func CheckSecrets(s *engine.Spec) error {
	once := false
	for _, secret := range s.Secrets {
		if secret.Once && secret.As != caisson.SecretFile {
			return Unsupported("secrets."+secret.Name+".once", errors.New("only a file can be gone after its first read; use as: file"))
		}
		once = once || secret.Once
	}
	for i, m := range s.Mounts {
		// What lies there is made by the keeper, which must not be led astray.
		if once && (Below(m.Target, onceDir) || Below(onceDir, m.Target)) {
			return Invalid(fmt.Sprintf("mounts[%d].target", i), fmt.Errorf("%s is where secrets are that can be read once", onceDir))
		}
	}
	return nil
}

// CheckDisk refuses a disk limit that can't be divided; see Share.
func CheckDisk(s *engine.Spec) error {
	if s.Limits.Disk != 0 && s.Work == "" && s.Limits.Disk < leastDisk {
		return Invalid("limits.disk", fmt.Errorf("%s: the least is %s", s.Limits.Disk, leastDisk))
	}
	return nil
}

// SecretEntries are the files of secrets.
func SecretEntries(s *engine.Spec) []isolate.Entry {
	var list []isolate.Entry
	for _, secret := range s.Secrets {
		switch {
		case secret.As != caisson.SecretFile:
		case secret.Once:
			list = append(list, isolate.Entry{Path: path.Join(secretsDir, secret.Name), Link: path.Join(onceDir, secret.Name)})
		default:
			list = append(list, isolate.Entry{
				Path: path.Join(secretsDir, secret.Name), Contents: secret.Value, Mode: 0o400, Owned: true,
			})
		}
	}
	return list
}

// Mounts are /tmp, the work folder, and what the task asks for. Owner returns
// whose files those of a source are on disk, for an idmapped mount, or nil.
func Mounts(s *engine.Spec, owner func(source string) *isolate.User) []isolate.Mount {
	sizes := Share(s)
	own := func(source, target string, size caisson.Bytes) isolate.Mount {
		if source == "" {
			return isolate.Mount{Type: isolate.Tmpfs, Target: target, Size: size}
		}
		return isolate.Mount{Type: isolate.Bind, Source: source, Target: target, Owner: owner(source)}
	}
	list := []isolate.Mount{own(s.Tmp, "/tmp", sizes.Tmp), own(s.Work, caisson.WorkDir, sizes.Work)}
	if slices.ContainsFunc(s.Secrets, func(secret engine.Secret) bool { return secret.Once }) {
		list = append(list, isolate.Mount{Type: isolate.Tmpfs, Target: onceDir, Size: onceSize, Mode: 0o700})
	}
	for _, m := range s.Mounts {
		mount := isolate.Mount{
			Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Size: m.Size, Mode: m.Mode,
		}
		if m.Owned {
			mount.Owner = owner(m.Source)
		}
		list = append(list, mount)
	}
	return list
}

// Sizes are those of what a program can write to in memory. Zero: the system's
// default.
type Sizes struct{ Work, Tmp, Shm caisson.Bytes }

// Share divides the disk limit. What the caller bounds has all of it, and what
// is in memory then as much at most. Otherwise the work folder gets three
// quarters, so that everything together stays below the limit.
func Share(s *engine.Spec) Sizes {
	limit := s.Limits.Disk
	switch {
	case limit == 0:
		return Sizes{}
	case s.Work != "":
		return Sizes{Tmp: limit, Shm: min(limit, standardShm)}
	}
	part := limit / 8 / pageSize * pageSize
	return Sizes{Work: limit - 2*part, Tmp: part, Shm: part}
}

// Below reports whether path is dir or lies in it.
func Below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// MachineID is what /etc/machine-id of a sandbox says (machine-id(5), without
// the newline): another one in each, and always the same in one.
func MachineID(id string) string {
	sum := sha256.Sum256([]byte("caisson machine id " + id))
	return hex.EncodeToString(sum[:16])
}

// Environ is a program's environment, sorted: all, and the secrets that are variables.
func Environ(all map[string]string, secrets []engine.Secret) []string {
	for _, secret := range secrets {
		if secret.As == caisson.SecretEnv {
			all[secret.Name] = string(secret.Value)
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, name+"="+all[name])
	}
	return list
}
