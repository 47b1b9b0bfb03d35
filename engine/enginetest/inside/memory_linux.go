package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

// Memory implements act.World, by /proc/self/mem. What was freed and not used
// again is looked at, too.
func (w *world) Memory(masked []byte, mask byte) ([]string, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	var found []string
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		// from-to perms ...
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); err != nil || !strings.Contains(lines.Text(), " rw") {
			continue
		}
		if searchMemory(mem, from, to, masked, mask) {
			found = append(found, "memory "+lines.Text())
		}
	}
	return found, nil
}

// searchMemory looks at one mapping, in blocks that overlap.
func searchMemory(mem *os.File, from, to int64, masked []byte, mask byte) bool {
	block := make([]byte, 1<<20)
	for at := from; at < to; {
		n, err := mem.ReadAt(block[:min(int64(len(block)), to-at)], at)
		if act.Holds(block[:n], masked, mask) {
			return true
		}
		if n <= len(masked) || err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if at+int64(n) >= to {
			return false
		}
		at += int64(n - len(masked))
	}
	return false
}
