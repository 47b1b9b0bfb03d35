package fields

import (
	"fmt"
	"strings"
)

// Suggest returns the known word that somebody who wrote word most likely
// meant, or "" where none is near.
func Suggest(word string, known []string) string {
	best, least := "", max(1, min(3, len(word)/3))
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d <= least && d < len(k) {
			if best == "" || d < least {
				best, least = k, d
			}
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour that make b of a.
func distance(a, b string) int {
	const longest = 64 // no key is longer; keeps hostile input cheap
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// oneOf lists words for a message: `"a", "b" or "c"`.
func oneOf(list []string) string { return words(list, " or ") }

// words lists words for a message with last before the last one.
func words(list []string, last string) string {
	var b strings.Builder
	for i, w := range list {
		switch {
		case i == 0:
		case i == len(list)-1:
			b.WriteString(last)
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}
