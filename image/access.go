//go:build unix

package image

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/lockfile"
)

// What a pull with credentials has brought is for those who have the same ones.
// Who that is stands in the store as a keyed digest, so that neither names nor
// passwords can be got, or tried, from what is kept. The key is the store's.
const (
	accessKeyFile = "access.key"
	accessKeySize = 32
)

// accessKey returns the key of the store, making it if it is not there yet.
func accessKey(ctx context.Context, dir string) ([]byte, error) {
	path := filepath.Join(dir, accessKeyFile)
	key, err := readAccessKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockfile.Acquire(ctx, path+lockSuffix)
	if err != nil {
		return nil, err
	}
	defer func() {
		os.Remove(path + lockSuffix)
		lock.Release()
	}()
	if key, err := readAccessKey(path); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, accessKeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return key, atomicfile.Write(path, key, 0o600)
}

func readAccessKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != accessKeySize {
		return nil, fmt.Errorf("%s has %d bytes, not %d: remove it to have images with credentials fetched again", path, len(key), accessKeySize)
	}
	return key, err
}

// accessOf returns the name that the store has for who has all of the parts.
func accessOf(key []byte, parts ...string) string {
	mac := hmac.New(sha256.New, key)
	for _, part := range parts {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// The kinds of access, as the first part of accessOf.
const (
	accessTask   = "task"   // credentials of a task's own for a registry
	accessHost   = "host"   // the operator's configuration for a registry
	accessWeak   = "weak"   // a registry that was spoken to without protection
	accessFile   = "file"   // a file of this host
	accessOrigin = "origin" // not a right: who had a blob, see origin
)

// accessOfRequest returns who the request's pull acts for: empty is everybody.
func (p *pulling) accessOfRequest() (string, error) {
	r, req, ref, key := p.remote, p.req, p.ref, p.key
	switch {
	case ref.file():
		return "", nil // known once it is open: see fileAccess
	case ref.Scheme != SchemeRegistry:
		return "", nil
	case !r.sendsTo(p.insecure, ref.Host):
		// Whoever is between here and the registry may have made what came.
		return accessOf(key, accessWeak, ref.Host, req.Username, req.Password, req.IdentityToken), nil
	case req.hasCredentials():
		return accessOf(key, accessTask, ref.Host, req.Username, req.Password, req.IdentityToken), nil
	}
	auths, err := r.auths()
	if err != nil {
		return "", err
	}
	for _, e := range r.endpoints(req, ref) {
		if auths.mayHave(e.host, e.repo) {
			return accessOf(key, accessHost, ref.Host, strings.Join(auths.keys(ref.Host, ref.Repo), " ")), nil
		}
	}
	return "", nil
}

// sendsTo reports whether a host gets the operator's credentials. One that a
// task wants to speak to without protection does not, and what comes from it is
// for no other task.
func (r *remote) sendsTo(in insecure, host string) bool {
	return !in.http && !in.tls || listed(r.sources.HTTP, host) || listed(r.sources.SkipTLS, host)
}

// hasCredentials reports whether the task has its own.
func (req *Request) hasCredentials() bool {
	return req.Username != "" || req.Password != "" || req.IdentityToken != ""
}

// fileAccess is who the pull from a file acts for: whoever names the path while
// it belongs to the same user. Somebody else who puts his own file there has
// nothing in common with that.
func (p *pulling) fileAccess(info fs.FileInfo) string {
	owner := "nobody" // never: every system that this is built for tells it
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = strconv.FormatUint(uint64(stat.Uid), 10)
	}
	return accessOf(p.key, accessFile, p.ref.Path, owner)
}
