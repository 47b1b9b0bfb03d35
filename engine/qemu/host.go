package qemu

import "github.com/caissonrun/caisson"

const (
	// leastMemory is the least that programs of a guest can have.
	leastMemory = 16 * caisson.MiB
	// leastDisk is the least file system that is worth its tables.
	leastDisk = 16 * caisson.MiB
)

// A host is what was found out about this host.
type host struct{}
