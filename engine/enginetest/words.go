package enginetest

import "strings"

// words returns the arguments of the inside program: a single text is a line
// of words, so that programs read as they would in a shell; several are the
// arguments themselves.
func words(args []string) []string {
	if len(args) == 1 {
		return strings.Fields(args[0])
	}
	return args
}
