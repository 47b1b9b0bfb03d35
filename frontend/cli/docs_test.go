package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md")

const docsHead = `# The command line

Generated from the commands' own help by ` + "`go test ./frontend/cli -run TestDocs -update`" + `.

There is no daemon: every command works on the state folder, and looks after tasks that nobody attends to before it does anything else. A task's id may be
shortened as long as it is the only one that begins so. Lists take ` + "`--json`" + `, with the keys of the Go types in package caisson and executor.

## Exit status

| status | meaning |
|---|---|
| 0 | ` + "`run`, `wait`" + `: the task succeeded; other commands: done |
| the program's | ` + "`run`, `wait`, `exec`" + `: it ended with this code; of a failed pre or post step: that step's |
| 1 | ` + "`validate`" + `: a document has problems, each told on a line |
| 124 | the program's time was up |
| 125 | Caisson could not do its part, or the sandbox was lost; one line on stderr says what, which and what to do |
| 126 | the program was found and can't be executed |
| 127 | the program was not found |
| 128+N | signal N ended the program, or this command |
| 137 | out of memory, or killed |

Errors go to stderr, once, as ` + "`caisson: what: item: why`" + `; problems of a document as ` + "`FILE:LINE:COLUMN: path: message`" + `, one a line.

## Flags of every command

`

// TestDocs holds docs/cli.md to what the commands say of themselves.
func TestDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString(docsHead)
	root := (&command{caller: &Caller{}}).root()
	writeFlags(&b, root.PersistentFlags())
	for _, cmd := range root.Commands() {
		writeCommand(&b, cmd)
	}
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("docs/cli.md differs from the commands' help; run go test ./frontend/cli -run TestDocs -update")
	}
}

func writeCommand(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", cmd.CommandPath())
	for _, use := range strings.Split(cmd.Use, " | ") {
		fmt.Fprintf(b, "    %s %s\n", strings.TrimSuffix(cmd.CommandPath(), " "+cmd.Name()), use)
	}
	text := cmd.Long
	if text == "" {
		text = strings.ToUpper(cmd.Short[:1]) + cmd.Short[1:] + "."
	}
	fmt.Fprintf(b, "\n%s\n", text)
	if cmd.Example != "" {
		fmt.Fprintf(b, "\n%s\n", regexp.MustCompile(`(?m)^  `).ReplaceAllString(cmd.Example, "    "))
	}
	if cmd.LocalNonPersistentFlags().HasFlags() {
		b.WriteString("\n")
		writeFlags(b, cmd.LocalNonPersistentFlags())
	}
	for _, sub := range cmd.Commands() {
		writeCommand(b, sub)
	}
}

func writeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		form := "--" + f.Name
		if f.Shorthand != "" {
			form = "-" + f.Shorthand + ", " + form
		}
		if name != "" {
			form += " " + name
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", form, strings.ReplaceAll(usage, "|", `\|`))
	})
}

// TestEveryCommandIsExplained holds the help: a line for each command, and no
// two flags of different meaning with the same letter.
func TestEveryCommandIsExplained(t *testing.T) {
	root := (&command{caller: &Caller{}}).root()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s: no short help", cmd.CommandPath())
		}
		if !cmd.HasSubCommands() && cmd.RunE == nil {
			t.Errorf("%s: does nothing", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: no help", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	for _, cmd := range root.Commands() {
		visit(cmd)
	}
}
