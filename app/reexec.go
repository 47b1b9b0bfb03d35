package app

import (
	"os"

	"github.com/caissonrun/caisson/engine/all"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

// Reexec is called first of all by main. Where this process was started to be
// a keeper or a sandbox's init, it is that and never returns. Otherwise it does
// nothing.
//
// A program that has the small keeper within it, or beside it, is not started
// for that; but it may be where it was built without one.
func Reexec() {
	if isolate.IsInit() {
		isolate.Main()
	}
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.MainWith(os.Args[2:], all.Openers()))
	}
}
