package main

import (
	"os"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

func main() {
	// Before anything else can open a descriptor.
	fds := openDescriptors()
	os.Exit(act.Run(&world{fds: fds}, os.Args[1:]))
}
