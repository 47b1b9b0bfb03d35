// Command program stands for the main binary in tests of keeper.Program: it
// prints what that returns, and is a keeper itself as a subcommand.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

func main() {
	if isolate.IsInit() {
		isolate.Main()
	}
	if len(os.Args) > 1 && os.Args[1] == keeper.Subcommand {
		os.Exit(server.Main(os.Args[2:]))
	}
	command, err := keeper.Program(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(command, " "))
}
