package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/document"
	"github.com/caissonrun/caisson/internal/config"
)

const (
	// statusFailed is what every command exits with where Caisson itself could
	// not do its part.
	statusFailed = 125
	// statusProblems is what validate and config check exit with where they
	// worked and found problems.
	statusProblems = 1
)

// exitStatus ends a command with a status. Whatever there was to say has been
// said.
type exitStatus int

// Error implements error.
func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

// Error implements error.
func (e interrupted) Error() string { return "interrupted: " + e.signal.String() }

// report prints err, once, and returns the exit status that it stands for.
func (c *command) report(err error) int {
	var status exitStatus
	var sig interrupted
	var inDocument document.Problems
	var inConfig config.Problems
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &sig):
		return 128 + int(sig.signal)
	case errors.As(err, &inDocument):
		c.printProblems(inDocument)
	case errors.As(err, &inConfig):
		for _, p := range inConfig {
			printProblem(c.caller.Stderr, p.Line, caisson.OpConfig, p.String())
		}
	case errors.Is(err, syscall.EPIPE):
		// Whoever read the output has seen enough of it; a shell's own tools
		// end silently here too.
		return 128 + int(syscall.SIGPIPE)
	default:
		fmt.Fprintf(c.caller.Stderr, "caisson: %s\n", oneLine(message(err)))
	}
	return statusFailed
}

// message returns err's text with a word on what to do where the cause alone
// does not say it.
func message(err error) string {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		return text + ": it took too long, try again"
	}
	if caisson.KindOf(err) == caisson.ErrUnknown && errors.Is(err, os.ErrPermission) {
		return text + ": run as a user who may, or choose another folder with --state"
	}
	return text
}

// printProblems prints one line for each thing that is wrong with a document.
func (c *command) printProblems(problems document.Problems) {
	for _, p := range problems {
		printProblem(c.caller.Stderr, p.Line, caisson.OpValidate, p.String())
	}
}

// printProblem prints a problem as editors read it, FILE:LINE:COLUMN first. One
// without a line, such as one of a flag, has the form of other errors.
func printProblem(w io.Writer, line int, op caisson.Op, text string) {
	prefix := ""
	if line == 0 {
		prefix = "caisson: " + string(op) + ": "
	}
	fmt.Fprintf(w, "%s%s\n", prefix, oneLine(text))
}

// usagef is an error of a wrong command line.
func usagef(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// usageError names the command whose flags were wrong.
func usageError(cmd *cobra.Command, err error) error {
	return usagef("%s: %w; see %s --help", strings.TrimPrefix(cmd.CommandPath(), "caisson "), err, cmd.CommandPath())
}

// exactly returns a check that a command has n arguments, which are named by
// what.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return usageError(cmd, fmt.Errorf("arguments: want %s, got %d", what, len(args)))
	}
}

// someOf returns a check that a command has from least to most arguments.
func someOf(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return usageError(cmd, fmt.Errorf("arguments: want %s, got %d", what, len(args)))
	}
}
