//go:build unix

// Command caisson-keeper is the keeper, and, where it starts itself again, the
// init of a sandbox. It is started by caisson only.
package main

import (
	"os"

	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/server"
)

func main() {
	if isolate.IsInit() {
		isolate.Main()
	}
	os.Exit(server.Main(os.Args[1:]))
}
