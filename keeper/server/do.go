//go:build unix

package server

import (
	"encoding/json"
	"os"
)

// A Doer is a Box that does what the keeper knows nothing of: between an engine
// and its own box there are requests of their own (keeper.Client.Do).
type Doer interface {
	// Do answers a request, at any time from the box's opening to its close, several
	// at once. Result is JSON, or nil. Files are handed over and closed here.
	Do(op string, params json.RawMessage) (result json.RawMessage, files []*os.File, err error)
}
