// Command caisson runs tasks in sandboxes.
package main

import (
	"os"

	"github.com/caissonrun/caisson/app"
)

func main() {
	app.Reexec()
	os.Exit(app.Main(nil))
}
