package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/config/tork"
)

// importLimit is the most bytes that a foreign configuration may have.
const importLimit = 1 << 20

func (c *command) configImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import tork FILE|-",
		Short: "translate another program's configuration",
		Long: "Translate the configuration of a Tork worker to caisson.toml, on stdout: its\n" +
			"runtime, its mounts and custom mounters, and TORK_RUNTIME_*, TORK_MOUNTS_* and\n" +
			"TORK_MOUNTER_* variables, which win over the file. What can't be taken over, or\n" +
			"not as it was, is told on stderr with what to do.",
		Args:      exactly(2, "tork and one FILE"),
		ValidArgs: []string{"tork"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "tork" {
				return usageError(cmd, fmt.Errorf("no configuration of %q is known, want tork", args[0]))
			}
			text, err := c.readForeign(args[1])
			if err != nil {
				return err
			}
			got, err := tork.Convert(text, &tork.Options{
				Environ: c.caller.Environ, Sections: slices.Collect(maps.Keys(c.caller.Sections)),
			})
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			for _, note := range got.Notes {
				printProblem(c.caller.Stderr, 0, caisson.OpConfig, note.String())
			}
			_, err = io.WriteString(c.caller.Stdout, got.TOML)
			return err
		},
	}
}

// readForeign reads a configuration that is translated; - is stdin.
func (c *command) readForeign(name string) ([]byte, error) {
	in := c.caller.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &caisson.Error{Op: caisson.OpConfig, Item: name, Kind: caisson.ErrNotFound, Err: errors.Unwrap(err)}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, importLimit+1))
	if err == nil && len(text) > importLimit {
		err = fmt.Errorf("it is larger than %d KiB", importLimit>>10)
	}
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: name, Kind: caisson.ErrInvalid, Err: err}
	}
	return text, nil
}
