package wire

import (
	"strconv"

	"github.com/caissonrun/caisson/internal/version"
)

// VersionText is what a keeper prints about itself: two that print the same
// were built from the same source. Of changed sources nobody knows that.
func VersionText(info version.Info) string {
	return Argv0 + " " + info.Version + " " + info.Commit + " protocol " + strconv.Itoa(Version) + "\n"
}
