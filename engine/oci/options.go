package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/network"
)

// A choice is what a task may say in its options. Those with the names of
// Nomad's rkt driver mean what they do there.
type choice struct {
	Command          string          `json:"command"`
	Args             []string        `json:"args"`
	TrustPrefix      string          `json:"trust_prefix"`
	DNSServers       []string        `json:"dns_servers"`
	DNSSearchDomains []string        `json:"dns_search_domains"`
	Net              []string        `json:"net"`
	PortMap          map[string]port `json:"port_map"`
	Volumes          []string        `json:"volumes"`
	InsecureOptions  []string        `json:"insecure_options"`
	NoOverlay        bool            `json:"no_overlay"`
	Debug            bool            `json:"debug"`
	Group            string          `json:"group"`

	Runtime       string            `json:"runtime"`
	ReadOnly      bool              `json:"readonly"`
	CapAdd        []string          `json:"cap_add"`
	CapDrop       []string          `json:"cap_drop"`
	Ulimits       map[string]ulimit `json:"ulimits"`
	Sysctls       map[string]string `json:"sysctls"`
	ShmSize       size              `json:"shm_size"`
	MaskedPaths   []string          `json:"masked_paths"`
	ReadOnlyPaths []string          `json:"readonly_paths"`
}

// A port is one of the container's: a number, "6379", or "6379-tcp".
type port struct {
	number   int
	protocol string
}

// UnmarshalJSON reads any of its forms.
func (p *port) UnmarshalJSON(data []byte) (err error) {
	p.number, p.protocol, err = network.ParsePort(strings.Trim(string(data), `"`))
	return err
}

// A ulimit is a resource limit: a number, or soft and hard ones.
type ulimit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// UnmarshalJSON reads both forms.
func (u *ulimit) UnmarshalJSON(data []byte) error {
	var n uint64
	if err := json.Unmarshal(data, &n); err == nil {
		u.Soft, u.Hard = n, n
		return nil
	}
	type plain ulimit
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(u)); err != nil {
		return fmt.Errorf("ulimit %s: use a number, or {soft: N, hard: N}", data)
	}
	if u.Soft > u.Hard {
		return fmt.Errorf("ulimit %s: soft is beyond hard", data)
	}
	return nil
}

// A size is a number of bytes, or text such as "64m".
type size caisson.Bytes

// UnmarshalJSON reads both forms.
func (s *size) UnmarshalJSON(data []byte) error {
	b, err := caisson.ParseBytes(strings.Trim(string(data), `"`))
	*s = size(b)
	return err
}

// readOptions reads a task's options.
func readOptions(data json.RawMessage) (*choice, error) {
	c := new(choice)
	if len(data) == 0 {
		return c, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, kept.Invalid("options", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, kept.Invalid("options", errors.New("more than one value"))
	}
	return c, nil
}

// ImageOptions implements engine.ImageChooser.
func (e *Engine) ImageOptions(options json.RawMessage) (engine.ImageOptions, error) {
	c, err := readOptions(options)
	if err != nil {
		return engine.ImageOptions{}, err
	}
	out := engine.ImageOptions{
		TrustPrefix: c.TrustPrefix, InsecureOptions: c.InsecureOptions, NoOverlay: c.NoOverlay, Cmd: c.Args,
	}
	if c.Command != "" {
		out.Entrypoint = []string{c.Command}
	}
	return out, nil
}

// apply puts what the options say, and a spec has fields for, in a copy of the
// spec.
//
// Errors: ErrInvalid for what is said twice.
func (c *choice) apply(spec *engine.Spec) (*engine.Spec, error) {
	s := *spec
	if len(s.Args) == 0 && s.Run == "" && c.Command != "" {
		s.Args = append([]string{c.Command}, c.Args...)
	}
	if c.Group != "" {
		if s.Group != "" && s.Group != c.Group {
			return nil, twice("group")
		}
		s.Group = c.Group
	}
	if err := c.applyNet(&s); err != nil {
		return nil, err
	}
	if err := c.applyDNS(&s); err != nil {
		return nil, err
	}
	for name, p := range c.PortMap {
		if s.Network.Mode == caisson.NetworkHost {
			break // every port is the host's own then
		}
		if name == "" {
			return nil, kept.Invalid("options.port_map", errors.New("a port has no label"))
		}
		s.Ports = append(s.Ports[:len(s.Ports):len(s.Ports)], caisson.Port{Port: p.number, Protocol: p.protocol})
	}
	return &s, nil
}

// applyNet turns names of networks, "host" and "none" into the spec's form. A
// name may have arguments: NAME:ARG=V;ARG=V.
func (c *choice) applyNet(s *engine.Spec) error {
	if len(c.Net) == 0 {
		return nil
	}
	if !s.Network.IsZero() && s.Network.Mode != caisson.NetworkNone {
		return twice("network")
	}
	s.Network = caisson.Network{}
	for _, text := range c.Net {
		attach, err := network.ParseAttach(text)
		if err != nil {
			return at("options.net", err)
		}
		switch attach.Name {
		case caisson.NetworkHost, caisson.NetworkNone, caisson.NetworkDefault:
			if len(c.Net) > 1 || len(attach.Args) > 0 {
				return kept.Invalid("options.net", fmt.Errorf("%s stands alone", attach.Name))
			}
			s.Network.Mode = attach.Name
			return nil
		}
		s.Network.Attach = append(s.Network.Attach, attach)
	}
	return nil
}

// applyDNS adds servers and searched domains. A single server "none" or "host"
// is a word that the spec passes on.
func (c *choice) applyDNS(s *engine.Spec) error {
	if len(c.DNSServers) == 0 && len(c.DNSSearchDomains) == 0 {
		return nil
	}
	if s.DNS != nil {
		return twice("dns")
	}
	s.DNS = &caisson.DNS{Servers: c.DNSServers, Search: c.DNSSearchDomains}
	return nil
}

func twice(field string) error {
	return kept.Invalid("options", fmt.Errorf("%s is set in the task and in its options, use one", field))
}

// The values of insecure_options that concern the run, and what each of them
// stands for.
var insecure = map[string][]string{
	"none": nil, "image": nil, "tls": nil, "http": nil, "ondisk": nil, "pubkey": nil, "all-fetch": nil,
	"capabilities": {"capabilities"}, "paths": {"paths"}, "seccomp": {"seccomp"},
	"all-run": {"capabilities", "paths", "seccomp"}, "all": {"capabilities", "paths", "seccomp"},
}

// weakened returns the protections of the run that a task switches off.
func (c *choice) weakened(o *Options) (map[string]bool, error) {
	off := map[string]bool{}
	for _, name := range c.InsecureOptions {
		list, known := insecure[name]
		if !known {
			return nil, kept.Invalid("options.insecure_options", fmt.Errorf("%q is not one", name))
		}
		for _, what := range list {
			off[what] = true
		}
	}
	if len(off) > 0 && !o.AllowInsecure {
		return nil, kept.Denied("options.insecure_options", errors.New("the operator does not permit it (engine.oci.allow_insecure_options)"))
	}
	return off, nil
}
