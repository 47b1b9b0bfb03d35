//go:build !linux

package attack

import "github.com/caissonrun/caisson"

// counts are how many there are of some things on the host.
type counts map[string]int

// locked can't be told; the attack that needs it needs a folder that both see.
func (t *Trial) locked(string) bool {
	t.Inapplicable("only Linux tells who holds a lock")
	return false
}

// Memory is not measured here.
func (t *Trial) Memory() caisson.Bytes { return 0 }

// resources can't be counted here.
func (t *Trial) resources() counts {
	t.Inapplicable("only Linux tells what a process holds")
	return nil
}

func (counts) without(counts) []string { return nil }
