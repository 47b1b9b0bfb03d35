package caisson

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// idAlphabet is Crockford's base 32: no letters that look like digits.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// NewTaskID returns a new task id: 16 letters and digits that sort by the time
// now, nine of time in milliseconds and seven of chance.
func NewTaskID(now time.Time) string {
	var b [16]byte
	ms := uint64(now.UnixMilli())
	for i := 8; i >= 0; i-- {
		b[i] = idAlphabet[ms&31]
		ms >>= 5
	}
	var chance [7]byte
	rand.Read(chance[:])
	for i, c := range chance {
		b[9+i] = idAlphabet[c&31]
	}
	return string(b[:])
}

// CheckTaskID returns an error of kind ErrInvalid unless id could have been
// made by NewTaskID. Ids become parts of paths, so nothing else is let through.
func CheckTaskID(id string) error {
	if len(id) == 16 && strings.Trim(id, idAlphabet) == "" {
		return nil
	}
	return &Error{Item: fmt.Sprintf("%q", id), Kind: ErrInvalid, Err: fmt.Errorf("not a task id")}
}

// SandboxID names the sandbox of one step of one attempt (counted from 1) of a
// task. Step is "main", "pre-0", "post-0", "finally-0", "sidecar-0" and so on.
func SandboxID(task string, attempt int, step string) string {
	return fmt.Sprintf("%s-%d-%s", task, attempt, step)
}
