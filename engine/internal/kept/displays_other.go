//go:build !linux

package kept

import (
	"errors"
	"net"

	"github.com/caissonrun/caisson/internal/safefs"
)

// canConnect says that connectTo can't work.
const canConnect = false

// connectTo reports that a socket can't be reached safely here.
func connectTo(*safefs.Root, string) (net.Conn, error) {
	return nil, Unsupported("displays", errors.New("a socket of the task's can be reached on Linux only"))
}
