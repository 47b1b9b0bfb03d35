//go:build linux

// Command caisson-guest is the agent in a virtual machine, and the first process
// there.
package main

import (
	"os"

	"github.com/caissonrun/caisson/internal/guest/agent"
)

func main() { os.Exit(agent.Main(os.Args[1:])) }
