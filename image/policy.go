//go:build unix

package image

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// checkPolicies refuses policies that could not mean what they look like.
func checkPolicies(s *Sources) error {
	seen := make(map[string]bool)
	for i := range s.Policies {
		p := &s.Policies[i]
		err := p.check(s.KeyDir)
		if err == nil && seen[p.prefix()] {
			err = errors.New("another policy has the same prefix")
		}
		if err != nil {
			return &caisson.Error{Op: caisson.OpConfig, Item: fmt.Sprintf("image policy of %q", p.Prefix), Kind: caisson.ErrInvalid, Err: err}
		}
		seen[p.prefix()] = true
	}
	for _, name := range s.AllowInsecure {
		if !slices.Contains([]string{insecureImage, insecurePubKey, insecureTLS, insecureHTTP, insecureOnDisk, insecureAllFetch, insecureAll}, name) && !ofEngines(name) {
			return &caisson.Error{Op: caisson.OpConfig, Item: "image.allow_insecure", Kind: caisson.ErrInvalid, Err: fmt.Errorf("unknown option %q", name)}
		}
	}
	return nil
}

func (p *Policy) check(keyDir string) error {
	host, _, _ := strings.Cut(p.Prefix, "/")
	switch {
	case p.Prefix != "" && host != "localhost" && !strings.ContainsAny(host, ".:"):
		return errors.New("the prefix begins neither with a registry, such as example.com, nor with a scheme and its colon")
	case p.Action != ActionAccept && p.Action != ActionReject && p.Action != ActionSigned:
		return fmt.Errorf("action %q is none of accept, reject, signed", p.Action)
	case p.Action == ActionSigned && len(p.Keys) == 0:
		return errors.New("action signed needs keys")
	case p.Action != ActionSigned && len(p.Keys) > 0:
		return errors.New("keys are for action signed")
	case len(p.Keys) > 0 && !filepath.IsAbs(keyDir):
		return errors.New("keys need key_dir, an absolute path")
	}
	for _, key := range p.Keys {
		if key != filepath.Base(key) || key == "." || key == ".." {
			return fmt.Errorf("key %q is not the name of a file in key_dir", key)
		}
	}
	return nil
}

// prefix returns the policy's prefix in the form that references have.
func (p *Policy) prefix() string {
	prefix := strings.TrimRight(p.Prefix, "/")
	for _, name := range dockerHubNames {
		if rest, ok := strings.CutPrefix(prefix, name); ok && (rest == "" || rest[0] == '/') {
			return dockerHub + rest
		}
	}
	return prefix
}

// below reports whether name is prefix or lies below it, by elements.
func below(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (rest == "" || prefix == "" || rest[0] == '/' || strings.HasSuffix(prefix, ":") || strings.HasSuffix(prefix, "/"))
}

// scope is what prefixes of policies are compared with.
func (r *Reference) scope() string {
	switch r.Scheme {
	case SchemeRegistry:
		return r.Name()
	case SchemeWeb:
		return r.URL
	}
	return string(r.Scheme) + ":" + r.Path
}

// policy returns the policy for a scope that fits with the longest prefix, of
// those that fit says. Nil: there is none.
func (s *Sources) policy(scope string, fit func(*Policy) bool) *Policy {
	var best *Policy
	for i := range s.Policies {
		p := &s.Policies[i]
		if below(scope, p.prefix()) && fit(p) && (best == nil || len(p.prefix()) > len(best.prefix())) {
			best = p
		}
	}
	return best
}

// insecure is what insecure_options ask for and the operator permits.
type insecure struct {
	image, tls, http bool
	none             bool // everything is to be enforced
}

// ofEngines reports whether an option is for an engine to understand.
func ofEngines(name string) bool {
	return slices.Contains([]string{"capabilities", "paths", "seccomp", "all-run"}, name)
}

// insecure reads a request's options.
func (r *remote) insecure(req *Request) (insecure, error) {
	var in insecure
	for _, name := range req.InsecureOptions {
		switch name {
		case insecureNone:
			in.none = true
			continue
		case insecureImage, insecurePubKey:
			in.image = true
		case insecureTLS:
			in.tls = true
		case insecureHTTP:
			in.http = true
		case insecureOnDisk:
		case insecureAllFetch, insecureAll:
			in.image, in.tls, in.http = true, true, true
		default:
			if ofEngines(name) {
				continue
			}
			return in, invalid("insecure_options: %q is unknown", shorten(name))
		}
		if !r.allowsInsecure(name) {
			return in, denied("insecure_options: the operator does not permit %q (`image.allow_insecure`)", name)
		}
	}
	if in.none && len(req.InsecureOptions) > 1 {
		return in, invalid("insecure_options: %q stands alone", insecureNone)
	}
	return in, nil
}

// allowsInsecure reports whether the operator permits an option, by itself or
// in a group.
func (r *remote) allowsInsecure(name string) bool {
	list := r.sources.AllowInsecure
	switch {
	case slices.Contains(list, name), slices.Contains(list, insecureAll):
		return true
	case name == insecureAll:
		return false
	}
	return slices.Contains(list, insecureAllFetch)
}

// A trust says what must be seen before an image is let in.
type trust struct {
	policy *Policy // whose keys must have signed it; nil: nobody's
	keys   []publicKey
}

// trust applies the operator's policies, and what the request asks for above
// them, to a reference.
//
// Errors: ErrDenied if the image is not to be had whatever its signatures;
// ErrInvalid for keys that can't be used.
func (r *remote) trust(req *Request, ref *Reference, in insecure) (*trust, error) {
	scope := ref.scope()
	policy := r.sources.policy(scope, func(*Policy) bool { return true })
	if policy != nil && policy.Action == ActionReject {
		return nil, denied("the operator's policy for %q rejects it", policy.Prefix)
	}
	required := policy != nil && policy.Action == ActionSigned || policy == nil && r.sources.RequireSignatures
	t := &trust{}
	switch {
	case req.TrustPrefix != "":
		prefix := strings.TrimRight(strings.TrimPrefix(req.TrustPrefix, "docker://"), "/")
		keyring := r.sources.policy((&Policy{Prefix: prefix}).prefix(), signedOnly)
		if keyring == nil {
			return nil, invalid("trust_prefix %q: the operator has no keys for it", shorten(req.TrustPrefix))
		}
		if !below(scope, (&Policy{Prefix: prefix}).prefix()) {
			return nil, denied("it is not below trust_prefix %q", shorten(req.TrustPrefix))
		}
		required = true
	case in.none:
		required = true
	}
	if !required || in.image {
		return t, nil
	}
	if t.policy = r.sources.policy(scope, signedOnly); t.policy == nil {
		return nil, denied("it must be signed, and the operator has no keys for it")
	}
	if ref.Scheme != SchemeRegistry {
		return nil, denied("the operator's policy for %q asks for a signature, and only images of registries have them", t.policy.Prefix)
	}
	var err error
	t.keys, err = loadKeys(r.sources.KeyDir, t.policy.Keys)
	return t, err
}

func signedOnly(p *Policy) bool { return p.Action == ActionSigned }
