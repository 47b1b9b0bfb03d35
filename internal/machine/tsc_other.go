//go:build !amd64

package machine

// counter64 is 0: there is no such counter.
func counter64() uint64 { return 0 }
