//go:build unix && !linux

package safefs

func isPseudo(int) bool { return false }
