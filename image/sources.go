//go:build unix

package image

import (
	"crypto/x509"
	"time"

	"github.com/caissonrun/caisson"
)

// Sources is how images are had from outside. It is the operator's. Zero
// durations and counts mean the defaults.
type Sources struct {
	// HTTP are registries that are spoken to by http, as HOST[:PORT]; all others
	// by https only. An entry permits private addresses for that host, too.
	HTTP []string
	// SkipTLS are registries whose certificate is not checked, as HOST[:PORT].
	SkipTLS []string
	// RootCAs are who is believed about servers; nil: the system's.
	RootCAs *x509.CertPool
	// Mirrors are tried in order before a registry, by the registry's host. A
	// mirror is HOST[:PORT][/PATH]; the repository follows. A task's own
	// credentials are never sent to one: its request goes to the registry.
	Mirrors map[string][]string
	// AuthFile is a config.json of docker's; empty: $REGISTRY_AUTH_FILE, else
	// config.json in $DOCKER_CONFIG or ~/.docker. It may name credential helpers.
	AuthFile string
	// Policies say which images are let in. The one with the longest prefix that
	// fits counts; where none does, everything is accepted.
	Policies []Policy
	// KeyDir is the folder of the public keys that Policies name. Nobody but root
	// and this process's user may be able to write to it.
	KeyDir string
	// RequireSignatures refuses images that no policy accepts by name or knows
	// keys for.
	RequireSignatures bool
	// AllowInsecure are the insecure_options that tasks may use, besides none.
	AllowInsecure []string
	// AllowFiles are the folders in which files and folders named by oci:,
	// oci-archive: and docker-archive: may lie; "*": anywhere. Trusted requests
	// may name all that the caller can read.
	AllowFiles []string
	// AllowPrivate lets images of every task come from loopback, private and
	// link-local addresses. Trusted requests may name such a registry, and so may
	// all for HTTP, SkipTLS and Mirrors.
	AllowPrivate bool
	// Parallel is how many layers of an image are fetched at the same time;
	// default 4.
	Parallel int
	// Tries is how often in a row a transfer may fail without a new byte;
	// default 5.
	Tries int
	// Delay is the pause after the first failure; it doubles with each. Default
	// 500 ms, never more than 30 s.
	Delay time.Duration
	// Idle is how long a server may be silent; default 30 s.
	Idle time.Duration
	// Total is how long a pull may take with all tries; default 6 hours.
	Total time.Duration
	// Helper is how long a credential helper may take; default 30 s.
	Helper time.Duration
}

// An Action is what a policy does with an image.
type Action string

// The actions.
const (
	ActionAccept Action = "accept" // signed or not
	ActionReject Action = "reject"
	ActionSigned Action = "signed" // only with a signature by one of the keys
)

// A Policy says which images below a prefix are let in.
type Policy struct {
	// Prefix is a registry, a folder of one or a repository, such as
	// example.com/team; or a scheme with its colon and maybe a path, such as
	// oci-archive:/srv/images. Empty: everything.
	Prefix string
	Action Action
	// Keys are the names of files in KeyDir, each with one public key in PEM:
	// ECDSA, Ed25519 or RSA. Only for ActionSigned.
	Keys []string
}

// The names of insecure_options that concern how an image is had. Others belong
// to engines.
const (
	insecureNone     = "none"
	insecureImage    = "image"  // signatures are not checked
	insecurePubKey   = "pubkey" // as image
	insecureTLS      = "tls"    // certificates are not checked
	insecureHTTP     = "http"   // http where https does not answer
	insecureOnDisk   = "ondisk" // nothing to skip here: what is kept is never trusted without its digest
	insecureAllFetch = "all-fetch"
	insecureAll      = "all"
)

// withDefaults returns the sources with all zero values filled in. Errors:
// ErrInvalid for what makes no sense.
func (s Sources) withDefaults() (Sources, error) {
	if s.Parallel < 0 || s.Tries < 0 || s.Delay < 0 || s.Idle < 0 || s.Total < 0 || s.Helper < 0 {
		return s, &caisson.Error{Op: caisson.OpConfig, Item: "image", Kind: caisson.ErrInvalid, Err: invalid("a count or a duration is negative")}
	}
	orDefault(&s.Parallel, 4)
	orDefault(&s.Tries, 5)
	orDefault(&s.Delay, 500*time.Millisecond)
	orDefault(&s.Idle, 30*time.Second)
	orDefault(&s.Total, 6*time.Hour)
	orDefault(&s.Helper, 30*time.Second)
	return s, nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
