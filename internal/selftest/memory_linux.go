package selftest

import (
	"fmt"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

// memoryHolds reports whether the memory of a process has a text, which is
// masked so that the looking puts it nowhere.
func memoryHolds(pid int, masked string) (bool, error) {
	found, err := act.Memory(fmt.Sprintf("/proc/%d", pid), masked)
	return len(found) > 0, err
}
