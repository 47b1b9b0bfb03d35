//go:build unix

package guest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

const (
	// maxFile is the largest File.
	maxFile = 4 << 20
	// maxOnce is the largest one that can be read once: what a pipe holds.
	maxOnce = 1 << 20
	// maxID is the largest id of a user or group.
	maxID = 1<<32 - 2
	// maxGroups bounds the groups of a Person.
	maxGroups = 64
)

// DefaultCaps returns what root has in a container of Docker's, for Setup.Caps:
// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE and SETFCAP.
func DefaultCaps() []int { return []int{0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31} }

// WriteFile makes a small file, a folder or a link below the guest's root.
//
// Errors: ErrInvalid for a name that is not absolute and clean, or too much data.
func (c *Client) WriteFile(ctx context.Context, f *File) error {
	if err := checkFile(f); err != nil {
		return err
	}
	return c.ask(ctx, caisson.OpCreate, wire.OpWrite, f, nil)
}

// checkFile refuses what no agent is asked for.
func checkFile(f *File) error {
	name, most := string(f.Path), maxFile
	if f.Once {
		most = maxOnce
	}
	var err error
	switch {
	case !path.IsAbs(name) || path.Clean(name) != name || name == "/" || strings.ContainsRune(name, 0):
		err = errors.New("not an absolute, clean path")
	case len(f.Data) > most:
		err = fmt.Errorf("more than %d bytes", most)
	}
	if err != nil {
		return &caisson.Error{Op: caisson.OpCreate, Item: fmt.Sprintf("guest: %q", name), Kind: caisson.ErrInvalid, Err: err}
	}
	return nil
}

// Lookup says who a user is by what the guest's root knows: as engine oci does, from
// /etc/passwd and /etc/group. What it says is checked for sense only: it is the
// guest's, and decides nothing outside of it.
//
// Errors: ErrInvalid if there is no such user or group.
func (c *Client) Lookup(ctx context.Context, who *Who) (*Person, error) {
	p := &Person{}
	if err := c.ask(ctx, caisson.OpCreate, wire.OpLookup, who, p); err != nil {
		return nil, err
	}
	ids := append([]int{p.User.UID, p.User.GID}, p.User.Groups...)
	bad := len(p.User.Groups) > maxGroups || len(p.Name) > maxNameLen || len(p.Home) >= maxPath
	for _, id := range ids {
		bad = bad || id < 0 || id > maxID
	}
	bad = bad || p.Home != "" && !path.IsAbs(p.Home) || strings.ContainsRune(p.Name+p.Home, 0)
	bad = bad || who.Standard != nil && p.User.UID == 0
	if bad {
		return nil, c.broken(caisson.OpCreate, errors.New("it names a user that there can't be"))
	}
	return p, nil
}

// SetHosts has programs find addresses by names, in place of those that an earlier
// call has given: lines of the root's /etc/hosts, beside those that it has.
func (c *Client) SetHosts(ctx context.Context, list []Host) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpHosts, &wire.Hosts{Hosts: list}, nil)
}

// SetIdentity makes the guest's own system another one than that which it is a copy
// of.
func (c *Client) SetIdentity(ctx context.Context, id *Identity) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpIdentity, id, nil)
}
