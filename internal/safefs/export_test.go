//go:build linux

package safefs

// ByElement makes Roots that do not use openat2.
func ByElement(o Options) *Options {
	o.noOpenat2 = true
	return &o
}
