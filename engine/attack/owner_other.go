//go:build !unix

package attack

import "os"

// ownerOf does not know.
func ownerOf(os.FileInfo) (uid, gid int) { return -1, -1 }
