package app

import (
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/config"
	"github.com/caissonrun/caisson/internal/gateway"
)

// proxies returns the upstreams of the configuration and those of opts, by name.
func proxies(cfg *Config, opts *Options) (map[string]http.Handler, error) {
	all := maps.Clone(opts.Proxies)
	if all == nil {
		all = make(map[string]http.Handler, len(cfg.Proxies))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Proxies)) {
		if all[name] != nil {
			return nil, duplicate("upstream", name)
		}
		p := cfg.Proxies[name]
		all[name] = &upstream{settings: upstreamOf(&p)}
	}
	return all, nil
}

func upstreamOf(p *config.Proxy) *gateway.Upstream {
	const fromFile = "file:"
	u := &gateway.Upstream{
		URL: p.URL, Command: p.Command, Dir: p.Dir, Headers: maps.Clone(p.Headers), Username: p.Username, CAFile: p.CAFile,
		Methods: p.Methods, Paths: p.Paths, Timeout: p.Timeout.Std(),
	}
	if u.Headers == nil {
		u.Headers = make(map[string]string, len(p.HeaderFiles))
	}
	for header, file := range p.HeaderFiles {
		u.Headers[header] = fromFile + file
	}
	if p.TokenFile != "" {
		u.Token = fromFile + p.TokenFile
	}
	if p.PasswordFile != "" {
		u.Password = fromFile + p.PasswordFile
	}
	return u
}

// An upstream is made when it is first used: a file that is missing keeps nobody
// from anything but its tasks.
type upstream struct {
	settings *gateway.Upstream

	once    sync.Once
	handler http.Handler
	err     error
}

var (
	_ executor.Checker = (*upstream)(nil)
	_ gateway.Opener   = (*upstream)(nil)
)

// Check implements executor.Checker.
func (u *upstream) Check() error {
	u.once.Do(func() { u.handler, u.err = u.settings.Handler() })
	return u.err
}

// ServeHTTP implements http.Handler.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := u.Check(); err != nil {
		http.Error(w, "the operator's settings of this upstream can't be used", http.StatusBadGateway)
		return
	}
	u.handler.ServeHTTP(w, r)
}

// Open implements gateway.Opener.
func (u *upstream) Open(logger *slog.Logger) (http.Handler, func()) {
	if u.Check() == nil {
		if o, ok := u.handler.(gateway.Opener); ok {
			return o.Open(logger)
		}
	}
	return u, func() {}
}
