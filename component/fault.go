package component

import (
	"errors"

	"github.com/caissonrun/caisson"
)

// A Fault says who can mend an error of a component run.
type Fault string

// The faults. They are what a result's error.type says.
const (
	UserFault        Fault = "user"        // the configuration or the data
	ApplicationFault Fault = "application" // the component, its definition, or Caisson
)

// The exit statuses of a component run beside those that every task has (124
// for a timeout, 137 for out of memory).
const (
	ExitSuccess     = 0
	ExitUser        = 1
	ExitApplication = 2
)

// fault marks an error as the application's.
type fault struct{ err error }

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// Application marks err as the application's fault, whatever its kind. Nil
// stays nil.
func Application(err error) error {
	if err == nil {
		return nil
	}
	return &fault{err}
}

// FaultOf returns who can mend err: the application where Application marked
// it, the user where its kind is one that a configuration or data can have
// caused, and the application otherwise.
func FaultOf(err error) Fault {
	var f *fault
	if errors.As(err, &f) {
		return ApplicationFault
	}
	switch caisson.KindOf(err) {
	case caisson.ErrInvalid, caisson.ErrUnsupported, caisson.ErrNotFound, caisson.ErrExists, caisson.ErrDenied:
		return UserFault
	}
	return ApplicationFault
}
