// Package slowtest leaves out what takes long, so that a bare `go test ./...`
// of an ordinary user ends soon. Root runs everything, and so does who sets
// Variable, as scripts/test and scripts/test-user do; -short has nobody run it.
package slowtest

import (
	"os"
	"testing"
)

// Variable is the environment variable that asks for all tests.
const Variable = "CAISSON_TEST_FULL"

// Why is the reason of those who leave something out.
const Why = "slow; " + Variable + "=1 runs it"

// Wanted reports whether slow tests are to run.
func Wanted() bool {
	return !testing.Short() && (os.Geteuid() == 0 || os.Getenv(Variable) != "")
}

// Skip ends a slow test where none is wanted.
func Skip(tb testing.TB) {
	tb.Helper()
	if !Wanted() {
		tb.Skip(Why)
	}
}

// Groups returns what Groups and Without of an enginetest.Harness are to be: all
// groups where slow tests are wanted, else those that are named.
func Groups(quick ...string) (groups []string, why string) {
	if Wanted() {
		return nil, ""
	}
	return quick, Why
}
