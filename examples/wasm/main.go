// The example is a program that becomes a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -o examples/wasm/wordcount.wasm ./examples/wasm
//
// It prints the words of a file that occur most often.
package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: wordcount FILE HOW-MANY")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	most, numErr := strconv.Atoi(os.Args[2])
	if err != nil || numErr != nil {
		fmt.Fprintln(os.Stderr, err, numErr)
		os.Exit(1)
	}
	counts := map[string]int{}
	for _, word := range strings.FieldsFunc(strings.ToLower(string(text)), func(r rune) bool { return !unicode.IsLetter(r) }) {
		counts[word]++
	}
	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	slices.SortFunc(words, func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, word := range words[:min(most, len(words))] {
		fmt.Println(counts[word], word)
	}
}
