//go:build unix && !linux

package bind

func showsOtherIDs(string) bool { return false }
