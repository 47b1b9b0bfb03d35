package caisson

import (
	"errors"
	"strings"
)

// A Kind sorts errors by what their reader can do about them. A Kind is itself
// an error, so errors.Is(err, caisson.ErrUnsupported) works through any
// wrapping. The list is closed and append-only. A cancelled or expired context
// stays context.Canceled or context.DeadlineExceeded.
type Kind int

const (
	// ErrUnknown is the kind of an error that nobody has sorted. It fails the
	// task it belongs to, never the worker.
	ErrUnknown Kind = iota
	// ErrInvalid says that the task itself must be mended.
	ErrInvalid
	// ErrUnsupported says that this engine or host can't do what was asked;
	// another one may.
	ErrUnsupported
	// ErrNotFound says that something named does not exist.
	ErrNotFound
	// ErrExists says that something to be made exists already, or is being
	// used by another owner.
	ErrExists
	// ErrDenied says that policy or permissions forbid it.
	ErrDenied
	// ErrExhausted says that the host is out of a resource: try later or
	// elsewhere.
	ErrExhausted
	// ErrUnavailable says that something Caisson needs does not answer: retry.
	ErrUnavailable
	// ErrEnded says that it is too late: the process has ended.
	ErrEnded
	// ErrAborted says that it is too late: the sandbox was destroyed meanwhile.
	ErrAborted
	// ErrInternal says that Caisson has a bug, to be reported.
	ErrInternal
)

var kindNames = [...]string{
	"unknown", "invalid", "unsupported", "not found", "exists", "denied",
	"exhausted", "unavailable", "ended", "aborted", "internal",
}

// Error returns the kind's name in lower-case words, such as "not found".
func (k Kind) Error() string {
	if k < 0 || int(k) >= len(kindNames) {
		return kindNames[ErrUnknown]
	}
	return kindNames[k]
}

// Retryable reports whether the same call may succeed later without anybody
// mending anything.
func (k Kind) Retryable() bool { return k == ErrExhausted || k == ErrUnavailable }

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.Error()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A name that this version
// does not know becomes ErrUnknown.
func (k *Kind) UnmarshalText(text []byte) error {
	*k = ErrUnknown
	for i, name := range kindNames {
		if name == string(text) {
			*k = Kind(i)
		}
	}
	return nil
}

// An Op names the part of a task's life in which an error was decided.
type Op string

// The operations, in the order in which a task meets them.
const (
	OpValidate Op = "validate"
	OpProbe    Op = "probe"
	OpStageIn  Op = "stage in"
	OpMount    Op = "mount"
	OpPrepare  Op = "prepare"
	OpCreate   Op = "create"
	OpStart    Op = "start"
	OpWait     Op = "wait"
	OpSignal   Op = "signal"
	OpExec     Op = "exec"
	OpFiles    Op = "files"
	OpStats    Op = "stats"
	OpDisplay  Op = "display"
	OpStageOut Op = "stage out"
	OpDestroy  Op = "destroy"
	OpRecover  Op = "recover"
	OpSweep    Op = "sweep"
	OpState    Op = "state"
	OpConfig   Op = "config"
)

// An Error is a failure whose kind has been decided. It is made only at the
// place that decides; on the way up errors are wrapped with fmt.Errorf and %w.
// It prints on one line as "op: item: cause".
type Error struct {
	Op   Op     // what was being done
	Item string // to what: a path, a name, a field; may be empty
	Kind Kind   // what the reader can do about it
	Err  error  // the cause, in words the reader can act on; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	if e.Op != "" {
		parts = append(parts, string(e.Op))
	}
	if e.Item != "" {
		parts = append(parts, e.Item)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	} else {
		parts = append(parts, e.Kind.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the outermost sorted error in err's chain, and
// ErrUnknown where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return ErrUnknown
}
