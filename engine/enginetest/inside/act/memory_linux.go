package act

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Memory tells where in the memory of a process, given by its folder in /proc,
// the text of Masked is. What was freed and not used again is looked at, too.
func Memory(process, masked string) (found []string, err error) {
	pattern, err := hex.DecodeString(masked)
	if err != nil || len(pattern) == 0 {
		return nil, errors.Join(err, errors.New("no pattern"))
	}
	maps, err := os.Open(filepath.Join(process, "maps"))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	mem, err := os.Open(filepath.Join(process, "mem"))
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		// from-to permissions ...
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); err != nil || !strings.Contains(lines.Text(), " rw") {
			continue
		}
		if searchMemory(mem, from, to, pattern) {
			found = append(found, "memory "+lines.Text())
		}
	}
	return found, nil
}

// searchMemory looks at one mapping, in blocks that overlap.
func searchMemory(mem io.ReaderAt, from, to int64, pattern []byte) bool {
	block := make([]byte, 1<<20)
	for at := from; at < to; {
		n, err := mem.ReadAt(block[:min(int64(len(block)), to-at)], at)
		if holds(block[:n], pattern) {
			return true
		}
		if n <= len(pattern) || err != nil || at+int64(n) >= to {
			return false
		}
		at += int64(n - len(pattern))
	}
	return false
}
