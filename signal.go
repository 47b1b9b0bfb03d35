package caisson

import (
	"fmt"
	"strconv"
	"strings"
)

// signalNames are Linux's signals on most processors, by number. Sandboxes
// have these numbers whatever system Caisson itself runs on.
var signalNames = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE",
	9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM",
	16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU",
	23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO",
	30: "PWR", 31: "SYS",
}

// maxSignal is the last real-time signal.
const maxSignal = 64

// ParseSignal returns the Linux number of a signal: its name with or without
// SIG, in any case, or its number from 1 to 64.
func ParseSignal(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > maxSignal {
			return 0, fmt.Errorf("signal %q: use 1 to %d", s, maxSignal)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for n, known := range signalNames {
		if known != "" && known == name {
			return n, nil
		}
	}
	return 0, fmt.Errorf("signal %q: no such signal, use a name such as TERM or a number", s)
}

// SignalName returns the name of a signal, such as "TERM", or its number.
func SignalName(n int) string {
	if n > 0 && n < len(signalNames) {
		return signalNames[n]
	}
	return strconv.Itoa(n)
}
