//go:build unix && !linux && !freebsd && !darwin

package machine

// seekData is refused by the system: no holes are known.
const seekData = -1
