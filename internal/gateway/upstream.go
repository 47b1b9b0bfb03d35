package gateway

import (
	"net/http"
	"time"

	"github.com/caissonrun/caisson"
)

// An Upstream is an HTTP service of the operator's that tasks reach as a proxy,
// with what is added to their requests on the way. Credentials are written
// "env:NAME" or "file:PATH" where they are not to stand in the configuration
// itself; a file is read again for each request, so that it can change.
type Upstream struct {
	URL      string            // http:// or https://; its path is put before the request's
	Headers  map[string]string // set in each request, whatever the task sent; values may be env: or file:
	Username string            // of basic authentication
	Password string            // may be env: or file:
	CAFile   string            // PEM certificates to trust, and no others; empty: the host's
	Methods  []string          // that pass; empty: all
	Paths    []string          // whose requests pass: a path and all below it; empty: all
	// Timeout is how long the service may take to begin its answer. 0: 5 minutes.
	Timeout time.Duration
}

// Handler returns the upstream as a handler for Policy.Proxies. It is safe for
// many sandboxes at once. Answers have credentials taken out.
//
// Errors: ErrInvalid for what can't be, ErrNotFound if a file or variable is not there.
func (u *Upstream) Handler() (http.Handler, error) { return nil, caisson.ErrUnsupported }
