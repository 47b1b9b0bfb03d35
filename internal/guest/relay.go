//go:build unix

package guest

import (
	"os"

	"github.com/caissonrun/caisson"
)

// Share lets another process see to the guest's files: it returns a connection at
// which that Dials a Client of its own. Of that one FS, Tar, Fetch, Put, Ping and
// Boot work; everything else is ErrUnsupported. It ends with this session.
//
// Errors: ErrExhausted if there are too many already.
func (c *Client) Share() (*os.File, error) { return nil, caisson.ErrUnsupported }
