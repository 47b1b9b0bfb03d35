// Package crash kills the process at named points, so that tests can see that
// whatever was done up to there is taken up again.
//
// The variable CAISSON_CRASH holds a point's name, or NAME:N for its Nth
// passing. Where it is not set, a point costs one comparison. There is a point
// before and after every durable write that something is recovered from; tests
// run through all of Points.
package crash

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Variable is the environment variable that chooses the point.
const Variable = "CAISSON_CRASH"

// A Name names a point.
type Name string

// armed is read once, from the environment that the process was started with.
// It is the only state of a package in Caisson: a point must be reachable from
// everywhere without being handed down, and it only ever ends the process.
var armed = parse(os.Getenv(Variable))

// A trigger is the point to stop at.
type trigger struct {
	name Name
	left atomic.Int64
}

func parse(value string) *trigger {
	if value == "" {
		return nil
	}
	name, count, _ := strings.Cut(value, ":")
	t := &trigger{name: Name(name)}
	t.left.Store(1)
	if n, err := strconv.ParseInt(count, 10, 64); err == nil && n > 0 {
		t.left.Store(n)
	}
	return t
}

// Point kills the process, as kill -9 does, if it is the chosen one.
func Point(name Name) {
	if armed == nil || armed.name != name || armed.left.Add(-1) != 0 {
		return
	}
	kill()
	select {}
}
