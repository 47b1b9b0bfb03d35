// Package early is what host and init of a guest have in common, and what an
// init does before anything else: it mounts what the kernel offers, loads the
// modules that package machine has put into the initramfs, and finds the port at
// which the host is.
//
// It is linked into programs that run in guests, so that it needs next to nothing.
package early

// Where things are in a guest's first root file system, besides /init.
const (
	// ModulesDir has the kernel's modules. Their order by name is the one in which
	// they are to be loaded.
	ModulesDir = "/modules"
	// DisksDir has those without which there are no disks. They are loaded when
	// somebody wants one, so that until then it can become another one.
	DisksDir = ModulesDir + "/disks"
	// ConfigFile has what the init is to know, where there is anything.
	ConfigFile = "/caisson.json"
)

// AgentPort is the name of the virtio-serial port at which guest and host meet.
const AgentPort = "org.caisson.agent"

// Hello begins the line by which a guest that only boots says that it has; the
// kernel's release ends it.
const Hello = "caisson-hello "
