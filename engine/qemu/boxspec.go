package qemu

import (
	"net/netip"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/dhcp"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
)

// Kind is the engine's keeper.Foreign.Kind, whose boxes OpenBox makes.
const Kind = Name

// firstTap is the descriptor of the first of boxSpec.Taps.
const firstTap = 3

// A boxSpec is what the keeper needs to make a machine. The engine has decided
// everything; the keeper only does it.
type boxSpec struct {
	// Box is what QEMU runs in, and QEMU its command line, with the paths that
	// files have in Box. It finds its protocol at descriptor 0, the agent's port at
	// 1, and the console at 2.
	Box  isolate.Spec    `json:"box"`
	QEMU isolate.Program `json:"qemu"`
	// Taps are TAP devices of Box.NetNS that it finds at descriptors from firstTap on.
	Taps []string `json:"taps,omitempty"`
	// Leases are what a system of its own is told by DHCP, by the names of Taps. There
	// are none for a machine whose agent says it.
	Leases map[string]*dhcp.Lease `json:"leases,omitempty"`
	// User is the network default where there are no rights for any other: the keeper
	// makes it in user space, and QEMU finds its end at firstTap. Nil: there is none.
	User *userNet `json:"user_net,omitempty"`
	// State is a file, on this host, of the saved state that the machine goes on
	// from. Empty: it boots. The guest is then told that it is a copy.
	State string `json:"state,omitempty"`
	// Diskless says that State is of a guest that knows nothing of its disks yet: the
	// early mounts are to be made.
	Diskless bool `json:"diskless,omitempty"`
	// Disks are the files, on this host, of disks that the machine writes to, by their
	// names: a snapshot has copies of them.
	Disks map[string]string `json:"disks,omitempty"`
	// Unfit says why there is no State though one was made for such a task.
	Unfit string `json:"unfit,omitempty"`
	// Save has the machine's state saved once its agent has answered and the early
	// mounts are made, before anything of a task's is done in the guest. Nil: nothing
	// is saved.
	Save *saveSpec `json:"save,omitempty"`
	// SaveDiskless has it saved before the early mounts are made. Nil: it is not.
	SaveDiskless *saveSpec `json:"save_diskless,omitempty"`
	// Attach says that the main program runs in State already: it is gone on with
	// where it would be started. Guest is what is to be done all the same.
	Attach *attachSpec `json:"attach,omitempty"`
	// Meta says that there is no agent: the guest asks for its program at a metadata
	// service, at the one socket of Box. Guest is empty but for a gateway, whose sockets
	// are then the keeper's own: that of a proxy by its address in Proxies, by name.
	Meta    bool              `json:"meta,omitempty"`
	Proxies map[string]string `json:"proxies,omitempty"`
	// Patience is how long the guest may take until its agent answers.
	Patience caisson.Duration `json:"patience"`
	Guest    guestSpec        `json:"guest"`
}

// A userNet is a network that the keeper makes: see package usernet.
type userNet struct {
	// Servers are asked for names.
	Servers []netip.AddrPort `json:"servers,omitempty"`
	// DNS is what the guest is told by DHCP; nil: the network's own resolver.
	DNS *caisson.DNS `json:"dns,omitempty"`
	// Ports of the host lead to the guest; their HostPort is set.
	Ports []caisson.Port `json:"ports,omitempty"`
}

// A guestSpec is what is done in the guest before its program starts, in this
// order.
type guestSpec struct {
	Hostname string `json:"hostname,omitempty"`
	// MachineID becomes what /etc/machine-id says, also of a copy. Empty: it is the
	// system's own.
	MachineID string `json:"machine_id,omitempty"`
	// UUID and NewKeys are for a system of its own that is a copy: what it shows as the
	// firmware's, and that an SSH server of it gets other keys.
	UUID    string `json:"uuid,omitempty"`
	NewKeys bool   `json:"new_keys,omitempty"`
	// Early are mounts that are made in the guest's first root, that of the
	// initramfs, before its state is saved: all machines of one shape have the same,
	// and one that goes on from a saved state has them.
	Early []guest.Mount `json:"early,omitempty"`
	// Mounts are made there after that. What is mounted at Root then becomes the root
	// of everything. Empty: the guest has a system of its own, whose agent was started
	// by it.
	Mounts []guest.Mount `json:"mounts,omitempty"`
	Root   string        `json:"root,omitempty"`
	// Places are mounts that are made in the new root: binds of shares, memory.
	Places []guest.Mount `json:"places,omitempty"`
	// Files are written in the new root, as root: /etc/hosts, secrets.
	Files []guestFile `json:"files,omitempty"`
	// User and Group are the task's, as numbers or names of the image's; empty
	// where Setup names the user.
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
	// Standard takes the place of root where User means that. Nil: it may be root.
	Standard   *guest.Owner      `json:"standard,omitempty"`
	Setup      guest.Setup       `json:"setup"`
	Interfaces []guest.Interface `json:"interfaces,omitempty"`
	Gateway    *guestGateway     `json:"gateway,omitempty"`
}

// A guestFile is a file that is written into the guest, a folder or a symbolic
// link.
type guestFile struct {
	Path string `json:"path"` // absolute, inside
	Mode uint32 `json:"mode,omitempty"`
	Data []byte `json:"data,omitempty"`
	Link string `json:"link,omitempty"`
	Dir  bool   `json:"dir,omitempty"`
	// Once has it vanish when it is opened, with what it says.
	Once bool `json:"once,omitempty"`
	// Own says that it is the program's user's. Otherwise it is root's.
	Own bool `json:"own,omitempty"`
}

// A guestGateway is sockets inside of the guest that the keeper holds.
type guestGateway struct {
	Sockets    []isolate.Socket `json:"sockets"`
	Everything bool             `json:"everything,omitempty"`
}
