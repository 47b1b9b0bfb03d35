//go:build !linux && !wasip1

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "inside: sandboxes are observed on Linux only")
	os.Exit(1)
}
