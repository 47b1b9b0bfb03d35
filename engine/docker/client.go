package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/client"

	"github.com/caissonrun/caisson"
)

const (
	// callTime bounds each call to the daemon but those that stream: one that
	// hangs must not hold up a task for ever.
	callTime = 60 * time.Second
	// leastAPI is Docker 20.10's.
	leastAPI = "1.41"
)

// standardAddress is where a daemon listens if nothing else is said.
const standardAddress = "unix:///var/run/docker.sock"

// A daemon is a connection to the container daemon. Its methods may be called
// from any goroutine.
type daemon struct {
	*client.Client
	host string
}

// connect returns a daemon without talking to it. The version of its API is
// agreed on with the first call.
//
// Errors: ErrInvalid if host is no address.
func connect(host string) (*daemon, error) {
	if host == "" {
		host = standardAddress
	}
	dialer := &net.Dialer{Timeout: callTime}
	// A connection for each call: what is kept open is kept for every sandbox.
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: client.CheckRedirect}
	options := []client.Opt{client.WithHTTPClient(plain), client.WithHost(host), client.WithUserAgent("caisson")}
	if path, ok := socketPath(host); ok {
		options = append(options, client.WithScheme("http"), client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}))
	}
	if dir := os.Getenv("DOCKER_CERT_PATH"); dir != "" && os.Getenv("DOCKER_TLS_VERIFY") != "" {
		options = append(options, client.WithTLSClientConfig(
			filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))
	}
	c, err := client.New(options...)
	if err != nil {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: "engine.docker.host", Kind: caisson.ErrInvalid, Err: fmt.Errorf("%q: %w", host, err)}
	}
	return &daemon{Client: c, host: host}, nil
}

// socketPath returns the path of a unix:// address.
func socketPath(host string) (string, bool) {
	const scheme = "unix://"
	if len(host) > len(scheme) && host[:len(scheme)] == scheme {
		return host[len(scheme):], true
	}
	return "", false
}

// errSlow is the cause of a call that took longer than callTime.
var errSlow = errors.New("the daemon does not answer; it hangs, or the host is overloaded")

// bounded returns a context for one call to the daemon.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, callTime, errSlow)
}

// call makes one call within callTime, and sorts its error.
func call[R any](ctx context.Context, item string, f func(ctx context.Context) (R, error)) (R, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	r, err := f(ctx)
	return r, sorted(ctx, item, err)
}
