package main

import (
	"os"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

func main() { os.Exit(act.Run(&world{}, os.Args[1:])) }
