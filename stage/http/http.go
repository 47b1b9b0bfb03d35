//go:build unix

// Package http stages what web servers serve: http: and https: URLs of single
// files, byte for byte, never unpacked.
//
// A transfer that is cut off goes on where it stopped if the server can do
// that and the file is still the same, and begins again otherwise. Redirects
// are followed to public addresses only, and never from https to http; the same
// holds for the URL itself unless the task is trusted or the operator allows
// private addresses. Credentials stand in the URL as user and password, best
// as $NAME of a secret, and go to that server alone. Proxies in the environment
// are not used.
package http

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/netguard"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/internal/landing"
)

// Options configures a Stager. Zero durations and counts mean the defaults.
type Options struct {
	// AllowPrivate permits loopback, private and link-local addresses.
	AllowPrivate bool
	// RootCAs are who is believed about servers; nil: the system's.
	RootCAs *x509.CertPool
	// Redirects is how many are followed; default 10.
	Redirects int
	// Tries is how often in a row a transfer may fail without a new byte;
	// default 5.
	Tries int
	// Delay is the pause after the first failure; it doubles with each.
	// Default 500 ms, never more than MaxDelay.
	Delay time.Duration
	// Idle is how long a server may be silent; default 30 s.
	Idle time.Duration
	// Total is how long a transfer may take with all tries; default 6 hours.
	Total time.Duration
}

// MaxDelay is the longest pause between two tries, also where a server asks for
// a longer one.
const MaxDelay = 30 * time.Second

// A Stager serves http and https inputs.
type Stager struct{ opts Options }

var _ stage.Fetcher = (*Stager)(nil)

// New returns a Stager. Nil options mean the defaults. Errors: ErrInvalid for
// negative ones.
func New(opts *Options) (*Stager, error) {
	s := &Stager{}
	if opts != nil {
		s.opts = *opts
	}
	o := &s.opts
	if o.Redirects < 0 || o.Tries < 0 || o.Delay < 0 || o.Idle < 0 || o.Total < 0 {
		return nil, &caisson.Error{Op: caisson.OpConfig, Item: "stage.http", Kind: caisson.ErrInvalid, Err: errors.New("negative")}
	}
	orDefault(&o.Redirects, 10)
	orDefault(&o.Tries, 5)
	orDefault(&o.Delay, 500*time.Millisecond)
	orDefault(&o.Idle, 30*time.Second)
	orDefault(&o.Total, 6*time.Hour)
	return s, nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Schemes implements stage.Stager.
func (s *Stager) Schemes() []string { return []string{"http", "https"} }

// CheckInput implements stage.Fetcher.
func (s *Stager) CheckInput(in *caisson.Input, env *stage.Env) error {
	if in.Text != "" {
		return landing.Invalid(in, errors.New("it has both from and text: use one"))
	}
	if err := landing.CheckNoGit(in); err != nil {
		return err
	}
	if err := landing.Check(in); err != nil {
		return err
	}
	_, err := s.parse(in, env)
	return err
}

// parse returns the input's URL with the credentials filled in.
func (s *Stager) parse(in *caisson.Input, env *stage.Env) (*url.URL, error) {
	u, err := url.Parse(in.From)
	if err != nil {
		// The error's text holds the URL, and so maybe a password.
		return nil, landing.Invalid(in, errors.New("from is not a URL"))
	}
	if err := checkURL(u); err != nil {
		return nil, landing.Invalid(in, err)
	}
	if err := landing.Fill(in, u, env); err != nil {
		return nil, err
	}
	if !s.opts.AllowPrivate && !env.Trusted {
		if err := netguard.CheckHost(u.Hostname()); err != nil {
			return nil, fmt.Errorf("%s: %w", landing.Item(in), err)
		}
	}
	return u, nil
}

// checkURL refuses what is no URL of a web server.
func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("from: scheme %q is neither http nor https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return errors.New("from: the host is missing: use https://HOST/PATH")
	}
	return nil
}
