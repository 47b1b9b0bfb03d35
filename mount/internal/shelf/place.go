//go:build unix

package shelf

import (
	"strconv"

	"github.com/caissonrun/caisson/mount"
)

// The keys of a place's data.
const (
	nameKey    = "name"
	taskKey    = "task"
	attemptKey = "attempt"
)

// LeaseOf returns the lease that a mount needs.
func LeaseOf(req *mount.Request) Lease {
	return Lease{Task: req.Task, Attempt: req.Attempt, Index: req.Index, ReadOnly: req.Mount.ReadOnly}
}

// Data returns what a place must hold so that LeaseFrom finds the lease of the
// folder name again.
func (l *Lease) Data(name string) map[string]string {
	return map[string]string{nameKey: name, taskKey: l.Task, attemptKey: strconv.Itoa(l.Attempt)}
}

// LeaseFrom returns the lease that a place holds, if any.
func LeaseFrom(place *mount.Place) (name string, l Lease, ok bool) {
	attempt, err := strconv.Atoi(place.Data[attemptKey])
	if err != nil || place.Data[nameKey] == "" {
		return "", Lease{}, false
	}
	return place.Data[nameKey], Lease{Task: place.Data[taskKey], Attempt: attempt, Index: place.Index}, true
}
