package kept

import (
	"github.com/caissonrun/caisson/internal/cgroup"
	"github.com/caissonrun/caisson/internal/disk"
)

// Support is what parts of the host's kernel can do.
type Support struct {
	Version  string // of the kernel
	Cgroup   cgroup.Support
	Disk     disk.Support
	Landlock int // version of the ABI, 0: none
}
