//go:build unix

package image

// Sources is how images are had from outside.
type Sources struct {
	Insecure []string // registries that may be spoken to by http, host[:port]
	// Mirrors are tried before a registry, by the registry's name, in order.
	Mirrors map[string][]string
	// AuthFile is a config.json of docker's; empty: $REGISTRY_AUTH_FILE, else
	// docker's own place.
	AuthFile string
	// PolicyDir is the operator's folder of signature policies and keys; empty:
	// everything is accepted.
	PolicyDir string
	// AllowFiles are the folders in which files and folders named by oci:,
	// oci-archive: and docker-archive: may lie; "*": anywhere.
	AllowFiles []string
}
