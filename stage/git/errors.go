//go:build unix

package git

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// causes sorts what git, ssh and servers say; the first row that is found in
// it counts. They come in English because git runs with LC_ALL=C.
var causes = []struct {
	text string
	kind caisson.Kind
}{
	{"No space left on device", caisson.ErrExhausted},
	{"Disk quota exceeded", caisson.ErrExhausted},
	{"Cannot allocate memory", caisson.ErrExhausted},
	{"out of memory", caisson.ErrExhausted},
	{"cannot run ssh", caisson.ErrUnsupported},
	{"is not a git command", caisson.ErrUnsupported},
	{"unknown repository extension", caisson.ErrUnsupported},
	{"fsck error", caisson.ErrInvalid},
	{"hasDotgit", caisson.ErrInvalid},
	{"dubious ownership", caisson.ErrDenied},
	{"Host key verification failed", caisson.ErrDenied},
	{"Permission denied", caisson.ErrDenied},
	{"Authentication failed", caisson.ErrDenied},
	{"could not read Username", caisson.ErrDenied},
	{"could not read Password", caisson.ErrDenied},
	{"returned error: 401", caisson.ErrDenied},
	{"returned error: 403", caisson.ErrDenied},
	{"not allowed", caisson.ErrDenied},
	{"certificate", caisson.ErrDenied},
	{"does not appear to be a git repository", caisson.ErrNotFound},
	{"epository not found", caisson.ErrNotFound},
	{"' not found", caisson.ErrNotFound},
	{"couldn't find remote ref", caisson.ErrNotFound},
	{"not our ref", caisson.ErrNotFound},
	{"unadvertised object", caisson.ErrNotFound},
	{"returned error: 404", caisson.ErrNotFound},
	{"returned error: 410", caisson.ErrNotFound},
	{"returned error: 429", caisson.ErrUnavailable},
	{"returned error: 5", caisson.ErrUnavailable},
	{"Could not resolve host", caisson.ErrUnavailable},
	{"Failed to connect", caisson.ErrUnavailable},
	{"Connection refused", caisson.ErrUnavailable},
	{"Connection reset", caisson.ErrUnavailable},
	{"Connection closed", caisson.ErrUnavailable},
	{"No route to host", caisson.ErrUnavailable},
	{"Network is unreachable", caisson.ErrUnavailable},
	{"timed out", caisson.ErrUnavailable},
	{"Operation too slow", caisson.ErrUnavailable},
	{"early EOF", caisson.ErrUnavailable},
	{"hung up", caisson.ErrUnavailable},
	{"RPC failed", caisson.ErrUnavailable},
	{"unable to access", caisson.ErrUnavailable},
	{"Could not read from remote repository", caisson.ErrUnavailable},
}

// Kind sorts a failure of git.
func (f *failure) kind() caisson.Kind {
	for _, c := range causes {
		if strings.Contains(f.stderr, c.text) {
			return c.kind
		}
	}
	return caisson.ErrUnknown
}

// says reports whether git said any of these.
func (f *failure) says(texts ...string) bool {
	for _, text := range texts {
		if strings.Contains(f.stderr, text) {
			return true
		}
	}
	return false
}

// maxLine is how much of a line of git's is told.
const maxLine = 300

// explain makes one line of what git said: the one that decided, else the first
// that is fatal, else err.
func explain(stderr string, err error) string {
	lines := strings.FieldsFunc(stderr, func(c rune) bool { return c == '\n' || c == '\r' })
	pick := ""
	for _, c := range causes {
		for _, line := range lines {
			if pick == "" && strings.Contains(line, c.text) {
				pick = line
			}
		}
	}
	for _, line := range lines {
		if pick == "" && strings.HasPrefix(line, "fatal: ") {
			pick = line
		}
	}
	if pick == "" {
		return err.Error()
	}
	for _, prefix := range []string{"remote: ", "fatal: ", "error: ", "ERROR: "} {
		pick = strings.TrimPrefix(pick, prefix)
	}
	return fmt.Sprintf("%q", pick[:min(len(pick), maxLine)])
}

// sorted makes an error about the input of whatever went wrong.
func (f *fetch) sorted(err error) error {
	var failed *failure
	var known *caisson.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", landing.Item(f.in), err)
	case errors.As(err, &known) && known.Op != "":
		return err
	case known != nil:
		return about(f.in, err)
	case errors.As(err, &failed):
		return &caisson.Error{Op: caisson.OpStageIn, Item: landing.Item(f.in), Kind: failed.kind(), Err: err}
	}
	return safefs.Sorted(caisson.OpStageIn, landing.Item(f.in), err)
}
